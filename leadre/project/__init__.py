"""The files a project is made of, wherever this package is installed: alembic.ini, feature_repo, migrations, recipes.

In the repository they are top-level folders; setup.py builds them into the wheel, beside this module.
"""

from __future__ import annotations

from pathlib import Path

from leadre.errors import ConfigError

IN_WHEEL = Path(__file__).parent
IN_CHECKOUT = IN_WHEEL.parents[1]


def packaged() -> bool:
    """Return whether the files come from a wheel, not from a checkout."""
    return (IN_WHEEL / "alembic.ini").is_file()


def project_file(name: str) -> Path:
    """Return where a file or folder of the project is.

    Args:
        name: relative to the repository's root, e.g. "recipes/demo.toml".

    Raises:
        ConfigError: the installation does not hold it.
    """
    path = (IN_WHEEL if packaged() else IN_CHECKOUT) / name
    if not path.exists():
        raise ConfigError(f"{path} does not exist: this installation of leadre is incomplete; install it again")
    return path
