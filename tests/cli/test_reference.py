"""docs/command_line.md is what click's tree says."""

from __future__ import annotations

from pathlib import Path

from leadre.cli import _COMMANDS, cli
from leadre.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "command_line.md"


def test_the_page_in_the_docs_is_the_tree_of_commands() -> None:
    assert PAGE.read_text() == reference(cli), (
        f"{PAGE.name} is not what the commands say: python -m leadre.cli.reference > docs/command_line.md"
    )


def test_every_command_has_a_heading_its_options_and_its_examples() -> None:
    page = reference(cli)
    for name in _COMMANDS:
        assert f"\n## leadre {name}\n" in page
    assert "\n### leadre index build\n" in page
    assert "| `--ray-address TEXT` |" in page
    assert "leadre index build recipes/amazon_beauty.toml --set index.codes=512" in page
