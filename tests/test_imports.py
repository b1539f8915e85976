"""What light modules may bring along: nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    *("torch", "transformers", "trl", "datasets", "tokenizers", "sentence_transformers", "accelerate"),
    *("feast", "sqlalchemy", "alembic", "psycopg2", "psycopg", "pandas", "pyarrow", "redis", "celery", "kombu"),
    *("sklearn", "scipy", "matplotlib", "starlette", "uvicorn"),
}


def loaded_by(module: str) -> set[str]:
    """Names of the top-level packages that importing a module loads, in a fresh interpreter."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "leadre",
        "leadre.artifacts",
        "leadre.cli",
        "leadre.derivation",
        "leadre.errors",
        "leadre.evaluation",
        "leadre.prompts",
        "leadre.recipe",
        "leadre.settings",
    ],
)
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(module) & HEAVY == set()


@pytest.mark.parametrize("noun", ["ads", "behavior", "identity", "retrieval", "semantic_id", "users"])
def test_the_nouns_need_the_standard_library_only(noun: str) -> None:
    outside = loaded_by(f"leadre.domain.{noun}") - set(sys.stdlib_module_names) - loaded_by("sys")
    assert outside <= {"leadre"}


def test_the_package_itself_is_a_name_and_a_version() -> None:
    assert loaded_by("leadre") - loaded_by("sys") == {"leadre"} | (loaded_by("__future__") - loaded_by("sys"))
