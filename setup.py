"""Builds the project's top-level files into the wheel; all else is said in pyproject.toml.

`alembic.ini`, `feature_repo/`, `migrations/` and `recipes/` become data of the package `leadre.project`, and `workers/`
becomes the package `leadre_workers`: in site-packages a name like `workers` would be in the way of other people's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PROJECT = (
    "alembic.ini",
    *("feature_repo/*.py", "feature_repo/*.yaml"),
    *("migrations/*.py", "migrations/*.mako", "migrations/versions/*.py"),
    "recipes/*.toml",
)
"""Patterns, so that what lies about in a working tree stays out. MANIFEST.in brings the same files into the sdist."""


class BuildWithProject(build_py):
    """Builds the packages, and puts the project's files beside leadre/project/__init__.py."""

    def run(self) -> None:
        """Build from nothing: what an earlier build left in build/lib would be in the wheel as well."""
        if self.editable_mode:  # the files are found in the checkout
            super().run()
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        for path in (path for pattern in PROJECT for path in ROOT.glob(pattern)):
            target = Path(self.build_lib, "leadre/project", path.relative_to(ROOT))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


setup(
    packages=[*find_packages(include=["leadre", "leadre.*"]), "leadre_workers"],
    package_dir={"leadre_workers": "workers"},
    cmdclass={"build_py": BuildWithProject},
)
