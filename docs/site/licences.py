"""Write docs/licences.md: every package that leadre brings, its version and its licence, from installed metadata.

A licence that binds whoever distributes the product together with it (GPL and its kin) must be listed in REVIEWED, with
what was found; another one ends this with exit code 1.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/licences.md"
RUNTIME = ("all", "duckdb", "engine", "otel", "scale")
"""The extras that a user installs; what only developers need is not brought along."""

STRONG = re.compile(r"\b(A?GPL|SSPL|BUSL|CC-BY-NC|GNU (Affero )?General Public)", re.IGNORECASE)
WEAK = re.compile(r"\b(LGPL|MPL|EPL|Lesser General)", re.IGNORECASE)
_UNCHANGED = "used as the package is, imported and not altered; whoever passes it on passes its source on"
REVIEWED = {
    "certifi": "a list of certificates; MPL binds changes of its own files, and none is changed",
    "pathspec": "MPL binds changes of its own files, and none is changed",
    "psycopg": _UNCHANGED,
    "psycopg-binary": _UNCHANGED,
    "psycopg-pool": _UNCHANGED,
    "psycopg2-binary": f"{_UNCHANGED}; LGPL with exceptions",
    "tqdm": "MPL binds changes of its own files, and none is changed",
}
"""Package -> why a licence of this kind is no hindrance."""


def closure(extras: tuple[str, ...] = RUNTIME) -> dict[str, str]:
    """Return every installed package that leadre with these extras needs: canonical name -> who needs it.

    A package that a marker leaves out, or that is not installed here, is not in it.
    """
    found: dict[str, str] = {}
    waiting = [(Requirement(f"leadre[{','.join(extras)}]"), "")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted, by = waiting.pop()
        name = canonicalize_name(wanted.name)
        key = (name, frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            requires = _ours() if name == "leadre" else metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name != "leadre":
            found.setdefault(name, by)
        for text in requires:
            further = Requirement(text)
            chosen = ["", *wanted.extras]
            if not further.marker or any(further.marker.evaluate({"extra": extra}) for extra in chosen):
                waiting.append((further, name))
    return found


def _ours() -> list[str]:
    """Return what pyproject.toml asks for, as metadata has it: an editable install may be older."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(_under(text, extra) for extra, more in extras.items() for text in more)]


def _under(text: str, extra: str) -> str:
    requirement, _, marker = text.partition(";")
    return f"{requirement.strip()}; extra == '{extra}'" + (f" and ({marker.strip()})" if marker else "")


def licence_of(name: str) -> str:
    """Return the licence that a package states: an SPDX expression, else classifiers, else the first line it has."""
    about = cast("Message", metadata.metadata(name))
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if line.startswith("License :: ")
    ]
    classifiers = [line for line in classifiers if line != "OSI Approved"]
    stated = (about.get("License") or "").strip().splitlines()
    if classifiers:
        return ", ".join(dict.fromkeys(classifiers))
    return stated[0][:80] if stated else "not stated"


def page(licences: dict[str, tuple[str, str]]) -> str:
    """Return docs/licences.md; `licences` is name -> (version, licence)."""
    lines = [
        "# Licences",
        "",
        "leadre is Apache-2.0. What `pip install 'leadre[all,duckdb,engine,otel,scale]'` brings, as the packages",
        "state it in their metadata; written by `python docs/site/licences.py`, which also makes a bill of materials",
        "(CycloneDX 1.6, JSON) with `--sbom FILE`. What only developers need is left out.",
        "",
        "| package | version | licence |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {version} | {licence.replace('|', '/')} |" for name, (version, licence) in licences.items()]
    if noted := [name for name in licences if name in REVIEWED]:
        lines += ["", "## Looked at", "", "| package | why it is no hindrance |", "|---|---|"]
        lines += [f"| {name} | {REVIEWED[name]} |" for name in noted]
    return "\n".join(lines) + "\n"


def bill(licences: dict[str, tuple[str, str]]) -> dict[str, object]:
    """Return the same as a CycloneDX document."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "leadre", "version": _version()}},
        "components": [
            {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name}@{version}",
                "licenses": [{"license": {"name": licence}}],
            }
            for name, (version, licence) in licences.items()
        ],
    }


def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def unreviewed(licences: dict[str, tuple[str, str]]) -> list[str]:
    """Return the packages whose licence needs a look that nobody has noted."""
    return [
        f"{name}: {licence}"
        for name, (_, licence) in licences.items()
        if (STRONG.search(licence) or WEAK.search(licence) or licence == "not stated") and name not in REVIEWED
    ]


def main(arguments: list[str]) -> int:
    """Write the page, and the bill where `--sbom FILE` asks for it; returns the exit code."""
    licences = {name: (metadata.version(name), licence_of(name)) for name in sorted(closure())}
    PAGE.write_text(page(licences))
    if "--sbom" in arguments:
        Path(arguments[arguments.index("--sbom") + 1]).write_text(json.dumps(bill(licences), indent=1) + "\n")
    for line in unreviewed(licences):
        print(f"look at this licence, and note in REVIEWED why it is no hindrance: {line}", file=sys.stderr)
    return bool(unreviewed(licences))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
