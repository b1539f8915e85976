"""The site builds without a warning, loads nothing from other hosts, and says one version everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from docs.site import licences

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"])
LINK = re.compile(r"\]\(([^)\s]+)\)")
LOADED = re.compile(
    r"""(?:<script[^>]+src|<link[^>]+href|<img[^>]+src|url\(|@import)[=\s("']*((?:https?:)?//[^"')\s]+)"""
)
PROGRAM = re.compile(r"`(leadre(?: [a-z][a-z-]*)+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [str(Path(sys.executable).with_name("mkdocs")), "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loaded = {
        found
        for path in [*site.rglob("*.html"), *site.rglob("*.css")]
        for found in LOADED.findall(path.read_text())
        if "sourceMappingURL" not in found
    }
    assert loaded == set()


def test_every_page_of_docs_is_in_the_site_and_the_reference_has_the_ranker_s_classes(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file(), page
    shown = (site / "reference/python/features.html").read_text()
    assert 'id="leadre.store.features.client.FeatureClient"' in shown
    assert "RankingFeatures" in shown


def test_a_path_that_prose_names_becomes_a_link(site: Path) -> None:
    tutorial = (site / "tutorial.html").read_text()
    assert '<a href="data_format.html">docs/data_format.md</a>' in tutorial
    assert '<a href="../adr/0003-level-score.html">docs/adr/0003</a>' in (site / "explanation/scores.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme in {"https", "mailto"}, target  # outside: its shape alone
            assert parts.netloc or parts.scheme == "mailto", target
            continue
        named = page.parent / parts.path if parts.path else page
        assert named.resolve().exists(), f"{page.name}: {target}"
        if parts.fragment:
            assert parts.fragment in anchors(named.read_text()), f"{page.name}: {target}"


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as MkDocs makes them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    from click import Group

    from leadre.cli import _COMMANDS, cli

    for words in PROGRAM.findall(page.read_text()):
        _, name, *more = words.split()
        assert name in _COMMANDS, f"{page.name}: {words}"
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        if isinstance(command, Group) and more:
            assert more[0] in command.commands, f"{page.name}: {words}"


def test_the_version_is_one_number_everywhere() -> None:
    import leadre

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert {project["version"], leadre.__version__, citation["version"], newest[1]} == {project["version"]}


def test_the_citation_has_the_paper_and_the_templates_are_forms() -> None:
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert (paper["volume"], paper["issue"], paper["start"], len(paper["authors"])) == (18, 12, 4763, 14)
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(form.read_text())
        if form.stem != "config":
            assert {"name", "description", "body"} <= content.keys(), form
            ids = [part["id"] for part in content["body"] if part["type"] != "markdown"]
            assert len(set(ids)) == len(ids), form


def test_every_dependency_is_on_the_licences_page_and_none_needs_a_look() -> None:
    names = licences.closure()
    page = licences.PAGE.read_text()
    assert {"numpy", "feast", "torch", "celery", "psycopg"} <= names.keys()
    assert [name for name in names if f"\n| {name} |" not in page] == []
    assert licences.unreviewed({name: ("", licences.licence_of(name)) for name in names}) == []


def test_a_licence_that_binds_is_noticed() -> None:
    found = {"a": ("1", "GPL-3.0-only"), "b": ("1", "MIT"), "c": ("1", "not stated"), "d": ("1", "LGPLv2+")}
    assert [line[0] for line in licences.unreviewed(found)] == ["a", "c", "d"]
    bill = licences.bill({"b": ("1", "MIT")})
    assert bill["components"] == [
        {
            "type": "library",
            "name": "b",
            "version": "1",
            "purl": "pkg:pypi/b@1",
            "licenses": [{"license": {"name": "MIT"}}],
        }
    ]
