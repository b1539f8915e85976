"""Artifacts: folders that are either whole or absent.

A folder is written under a temporary name, its manifest (sizes and SHA-256 of every file) last, and then renamed into
place. Whoever opens it checks the manifest first, and the hashes of weights. Readers never see half of an index or of
a release.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from leadre.errors import ArtifactIncomplete

MANIFEST = "manifest.json"
WEIGHTS = ".safetensors"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an artifact says of itself: its kind ("index" or "release"), its name, and facts a reader needs first."""

    kind: str
    name: str
    facts: Mapping[str, Any]


def write_artifact(
    folder: Path, *, kind: str, facts: Mapping[str, Any], write: Callable[[Path], None], replace: bool = False
) -> None:
    """Create `folder` whole or not at all.

    Args:
        folder: where the artifact goes; its name is the artifact's name.
        kind: what it is, checked by `open_artifact`.
        facts: JSON values for the manifest.
        write: writes the files into the folder it is given.
        replace: put the new one in the place of an existing one.

    Raises:
        FileExistsError: `folder` exists and `replace` is false.
    """
    if folder.exists() and not replace:
        raise FileExistsError(f"{folder} exists; artifacts are not changed in place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(unfinished)
        files = {
            path.relative_to(unfinished).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(unfinished.rglob("*"))
            if path.is_file()
        }
        manifest = {"format": FORMAT, "kind": kind, "name": folder.name, "facts": dict(facts), "files": files}
        with (unfinished / MANIFEST).open("w") as file:
            json.dump(manifest, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        unfinished.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def open_artifact(folder: Path, *, kind: str, verify: bool = False) -> Manifest:
    """Check an artifact and return its manifest.

    Of a file of weights (`*.safetensors`) SHA-256 is compared always, once a process and file: nothing else is loaded.

    Args:
        folder: the artifact.
        kind: the kind it must be.
        verify: compare SHA-256 of every file, of others than weights not only the size (seconds for large ones).

    Raises:
        ArtifactIncomplete: no folder, no manifest, another kind or format, or a file missing or altered.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
        name, facts, files = content["name"], content["facts"], content["files"]
    except FileNotFoundError:
        raise ArtifactIncomplete(
            f"{folder} has no {MANIFEST}: it does not exist or was not finished; build it again"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ArtifactIncomplete(f"{folder / MANIFEST} is damaged; build the artifact again") from None
    if content.get("format") != FORMAT or content.get("kind") != kind:
        raise ArtifactIncomplete(
            f"{folder} is a {content.get('kind')!r} artifact of format {content.get('format')}, "
            f"expected {kind!r} of format {FORMAT}"
        )
    for relative, expected in files.items():
        path = folder / relative
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            raise ArtifactIncomplete(
                f"{path} is missing or not {expected['bytes']} bytes long; build the artifact again"
            )
        if (verify or path.suffix == WEIGHTS) and _sha256(path) != expected["sha256"]:
            raise ArtifactIncomplete(f"{path} differs from its manifest; build the artifact again")
    return Manifest(kind=kind, name=name, facts=facts)


def _sha256(path: Path) -> str:
    known = path.stat()
    return _sha256_of(path, known.st_ino, known.st_size, known.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256_of(path: Path, _inode: int, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
