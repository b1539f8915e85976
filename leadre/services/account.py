"""Which account the servers run under, and where it finds their programs and keeps their data.

For leadre.services only. PostgreSQL refuses to run as root, and Redis needs not: under root both run as `nobody`. That
account often cannot pass through the folders above ours (a clone in /root, mode 700). Then the programs are copied to
where the data is; and if it cannot write below `home` either, `home`/services becomes a link to a folder in /var/lib.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from leadre.errors import ConfigError

NAME = "nobody"
ELSEWHERE = Path("/var/lib/leadre")
_REMEDY = "run as an ordinary user, or set LEADRE_DATABASE_URL and LEADRE_REDIS_URL to your own servers"
_SHELL = frozenset('"$`\\\n')
"""What means something to a shell between double quotes, where PostgreSQL's own tools put the paths they are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom the servers run as; both ids are None where that is the caller."""

    uid: int | None = None
    gid: int | None = None

    def own(self, *paths: Path) -> None:
        """Give folders or files to the account."""
        if self.uid is not None and self.gid is not None:
            for path in paths:
                os.chown(path, self.uid, self.gid)

    def obstacle(self, *command: str) -> str:
        """Run a command under the account, and return what kept it from ending well; nothing when it did."""
        groups = None if self.uid is None else ()
        try:
            done = subprocess.run(
                command,
                user=self.uid,
                group=self.gid,
                extra_groups=groups,
                cwd="/",
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            return error.strerror or str(error)
        return "" if done.returncode == 0 else done.stderr.strip() or "Permission denied"


def account() -> Account:
    """Return the servers' account: the caller's, or under root that of `nobody`.

    Raises:
        ConfigError: root has no such account.
    """
    if os.geteuid() != 0:
        return Account()
    try:
        found = pwd.getpwnam(NAME)
    except KeyError:
        raise ConfigError(f"PostgreSQL does not run as root, and here is no account {NAME!r}: {_REMEDY}") from None
    return Account(uid=found.pw_uid, gid=found.pw_gid)


def find_folder(home: Path) -> Path:
    """Return the servers' folder: `home`/services, or where that links to. It need not exist."""
    folder = home.absolute() / "services"
    return folder.parent / folder.readlink() if folder.is_symlink() else folder


def make_folder(home: Path) -> Path:
    """Return a folder that the servers' account can write below, moving an existing one to where it can.

    No server may run meanwhile.

    Raises:
        ConfigError: there is none, or its path holds what PostgreSQL's own tools cannot take.
    """
    link = home.absolute() / "services"
    if link.is_symlink() and not link.exists():
        link.unlink()
    link.mkdir(parents=True, exist_ok=True)
    folder, owner = find_folder(home), account()
    _check(folder)
    try:
        folder.chmod(0o711)  # the account passes through it; the data folders in it are its own
        if not (below_home := _obstacle(folder, owner)):
            return folder
        ELSEWHERE.mkdir(parents=True, exist_ok=True)
        ELSEWHERE.chmod(0o711)
        elsewhere = Path(tempfile.mkdtemp(prefix="services-", dir=ELSEWHERE))
        elsewhere.chmod(0o711)
        if obstacle := _obstacle(elsewhere, owner):
            elsewhere.rmdir()
            raise ConfigError(_refusal(f"{folder} ({below_home}) nor {elsewhere} ({obstacle})"))
        for path in folder.iterdir():
            shutil.move(path, elsewhere / path.name)
        owner.own(*elsewhere.rglob("*"))  # a move to another disk is a copy
        folder.rmdir()
        link.unlink(missing_ok=True)
        link.symlink_to(elsewhere)
    except OSError as error:
        raise ConfigError(
            f"the embedded servers cannot keep their data in {folder} ({error}): set LEADRE_HOME to a folder of your "
            f"own; or {_REMEDY}"
        ) from None
    return elsewhere


def find_programs(folder: Path, *, package: str, program: str) -> Path:
    """Return the folder of a wheel's programs, or of a copy in `folder` where the account cannot run them in place.

    Args:
        folder: from `make_folder`.
        package: the package that brings the programs; it is not imported.
        program: path of one of them inside it, which knows `--version`.

    Raises:
        ConfigError: the package is not installed, or the account cannot run its programs anywhere.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ConfigError(
            f"{package} is not installed: `pip install leadre[embedded]`, or set LEADRE_*_URL to own servers"
        )
    source, owner = Path(found.origin).parent, account()
    original = source / program
    if obstacle := owner.obstacle(str(original), "--version"):
        if owner.uid is None:
            raise ConfigError(f"{original} does not run here ({obstacle}): install leadre[embedded] again")
        copy = folder / "programs" / f"{package}-{importlib.metadata.version(package)}"
        if not copy.is_dir():
            _copy(source, copy)
        copied = copy / package / program
        if obstacle_there := owner.obstacle(str(copied), "--version"):
            raise ConfigError(_refusal(f"{original} ({obstacle}) nor {copied} ({obstacle_there})"))
        original = copied
    _check(original.parent)
    return original.parent


def _obstacle(folder: Path, owner: Account) -> str:
    """Return why the account cannot write in a folder of its own below `folder`; nothing when it can."""
    if owner.uid is None:
        return ""
    own = tempfile.mkdtemp(dir=folder)
    try:
        owner.own(Path(own))
        if not os.access(own, os.R_OK | os.W_OK | os.X_OK):
            return "root may not enter that account's folders: it lacks the capability dac_override"
        return owner.obstacle("test", "-w", own)
    finally:
        Path(own).rmdir()


def _copy(source: Path, target: Path) -> None:
    """Copy a wheel's programs with the libraries beside it, readable by everybody; nothing is seen of half a copy."""
    shutil.rmtree(unfinished := target.with_name(f"{target.name}.new"), ignore_errors=True)
    for part in (source, source.with_name(f"{source.name}.libs")):
        if part.is_dir():
            unwanted = shutil.ignore_patterns("include", "__pycache__", "*.a", "*.py")
            shutil.copytree(part, unfinished / part.name, ignore=unwanted)
    for path in (target.parent, unfinished, *unfinished.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    unfinished.rename(target)


def _check(folder: Path) -> None:
    if unfit := sorted(_SHELL & set(str(folder))):
        raise ConfigError(
            f"PostgreSQL's own tools cannot take {unfit[0]!r} in the path {str(folder)!r}: "
            "set LEADRE_HOME to a path without it, or install leadre in one"
        )


def _refusal(tried: str) -> str:
    return f"PostgreSQL does not run as root, and the account {NAME!r} cannot use {tried}: {_REMEDY}"
