"""The two engines of a training set's join: PostgreSQL, or DuckDB over Parquet files exported for it. LEADRE §5.3."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from feast import FeatureStore
from sqlalchemy import Engine

from leadre.derivation import LIST_TTL_S
from leadre.errors import ConfigError
from leadre.store.features.command import run_feast
from leadre.store.features.point_in_time import RankerJoin
from leadre.store.past.export import Progress, declare_views, export_views

VIEWS = ("retrieved_ads", "ad_index", "ad_features")
"""Whose sources a ranker's features rest on."""
DUCKDB = "feature_store.duckdb.yaml"


def open_join(
    feature_repo: Path,
    environment: Mapping[str, str],
    database: Engine,
    *,
    engine: Literal["postgres", "duckdb"],
    sources: Path,
    since: datetime,
    until: datetime,
    progress: Progress | None = None,
) -> RankerJoin:
    """Return the join of rows from `since` until before `until`.

    Args:
        feature_repo: folder of feature_store.yaml.
        environment: what that file's `${...}` stand for; set in this process.
        database: the system of record.
        engine: what joins. For DuckDB the sources are exported first: whole months, what counts within these bounds.
        sources: where they go.
        since: the first row's time.
        until: after the last row's time.
        progress: called as the export goes on.

    Raises:
        ConfigError: DuckDB is not installed.
        Unavailable: PostgreSQL does not answer.
    """
    os.environ.update(environment)
    # Feast warns that a registry cache lags by up to its ttl, which is what feature_store.yaml asks for.
    logging.getLogger("feast.repo_config").setLevel(logging.ERROR)
    store = FeatureStore(repo_path=str(feature_repo))
    if engine == "postgres":
        return RankerJoin.over(store)
    if find_spec("duckdb") is None or find_spec("ibis") is None:
        raise ConfigError("DuckDB is not installed: pip install 'leadre[duckdb]', or --engine postgres")
    lists, *others = (store.get_feature_view(name) for name in VIEWS)
    oldest = since - timedelta(seconds=LIST_TTL_S)
    export_views(database, [lists], sources, since=oldest, until=until, progress=progress)
    export_views(database, others, sources, since=None, until=until, progress=progress)
    declare_views(store.list_feature_views(), sources)
    os.environ["LEADRE_FEAST_PARQUET"] = str(sources.absolute())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "On demand feature view", RuntimeWarning)  # of scale, which is ours here
        run_feast(feature_repo, "-f", str(feature_repo / DUCKDB), "apply")
    over_files = FeatureStore(repo_path=str(feature_repo), fs_yaml_file=feature_repo / DUCKDB)
    return RankerJoin.over(over_files)
