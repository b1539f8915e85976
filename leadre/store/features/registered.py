"""Whether Feast's registry says what feature_repo says. LEADRE §4.4.1.

Feast has its own command for that, `feast plan`; a registry that was never applied is told apart before, because
opening one makes its tables.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from leadre.errors import ConfigError
from leadre.store.features.command import run_feast
from leadre.store.records.database import connect, transaction

NO_CHANGE = "No changes to registry"
_CHANGES = ("Created", "Updated", "Deleted")


def registered(feature_repo: Path, environment: Mapping[str, str]) -> str:
    """Compare the registry with the definitions.

    Args:
        feature_repo: folder of feature_store.yaml.
        environment: `Settings.feast_environment()`; set in this process.

    Returns:
        "never": nothing is applied; "same"; otherwise the first difference, as `feast plan` says it.

    Raises:
        LeadreError: Feast cannot read the definitions, or PostgreSQL does not answer.
    """
    os.environ.update(environment)
    url = make_url(environment["LEADRE_FEAST_REGISTRY_URL"]).set(drivername="postgresql")
    database = connect(url.render_as_string(hide_password=False), application_name="leadre doctor")
    try:
        with transaction(database) as connection:
            if not connection.scalar(text("SELECT count(*) FROM feature_views")):
                return "never"
    except (ProgrammingError, ConfigError):  # no such table
        return "never"
    finally:
        database.dispose()
    import feast.cli.cli  # noqa: F401 - it changes the filters of warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's, of what it calls experimental
        said = run_feast(feature_repo, "plan", "--skip-source-validation")
    if NO_CHANGE in said:
        return "same"
    changes = (line.strip() for line in said.splitlines() if line.startswith(_CHANGES))
    return next(changes, "it differs")
