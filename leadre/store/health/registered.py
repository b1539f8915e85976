"""Whether Feast's registry says what feature_repo says. LEADRE §4.4.1.

Feast has its own command for that, `feast plan`, which takes every view that was materialized for a changed one; so its
plan is made here, with what was materialized left out. A registry that was never applied is told apart before, because
opening one makes its tables.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from leadre.errors import ConfigError
from leadre.store.features.command import as_feast
from leadre.store.records.database import connect, transaction


def registered(feature_repo: Path, environment: Mapping[str, str]) -> str:
    """Compare the registry with the definitions.

    Args:
        feature_repo: folder of feature_store.yaml.
        environment: `Settings.feast_environment()`; set in this process.

    Returns:
        "never": nothing is applied; "same"; otherwise the first change that `feast apply` would make.

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
        changes = _changes(feature_repo.absolute())
    return changes[0] if changes else "same"


def _changes(feature_repo: Path) -> list[str]:
    """Return what `feast plan` would print if materialization were no change: a line for each change."""
    with as_feast(feature_repo, "plan"), chdir(feature_repo):
        from feast import FeatureStore, Project
        from feast.diff.property_diff import TransitionType
        from feast.feature_view import DUMMY_ENTITY_NAME
        from feast.infra.registry.registry import FeastObjectType
        from feast.repo_operations import parse_repo

        words = {TransitionType.CREATE: "Created", TransitionType.UPDATE: "Updated", TransitionType.DELETE: "Deleted"}
        store = FeatureStore(repo_path=str(feature_repo))
        sys.path.insert(0, str(feature_repo))  # definitions import each other by bare name
        wanted = parse_repo(feature_repo)
        wanted.projects.append(Project(name=store.project))
        there = {view.name: view for view in store.list_feature_views()}
        for view in wanted.feature_views:
            if view.name in there:
                view.materialization_intervals = there[view.name].materialization_intervals
        found, _, _ = store.plan(wanted)
        return [
            f"{words[each.transition_type]} {each.feast_object_type.value} {each.name}"
            for each in found.feast_object_diffs
            if each.transition_type in words
            and each.feast_object_type is not FeastObjectType.DATA_SOURCE  # nor does `feast plan`
            and each.name != DUMMY_ENTITY_NAME
        ]
