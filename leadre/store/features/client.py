"""The feature store as this system uses it: a thin client of Feast over the definitions in feature_repo.

LEADRE §4.4.1. Reads contexts, lists and ranker features, writes lists, joins features to training rows.
What Feast 0.67 leaves open is closed here: lost rows raise, expired lists are masked online as the join masks them, and
lists are written and read beside it, in its layout (list_writer.py, list_reader.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import redis
from feast import FeatureStore
from feast.online_response import OnlineResponse
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from leadre.domain.identity import id_of, ids_of
from leadre.domain.retrieval import RetrievalList
from leadre.domain.users import Context
from leadre.errors import ConfigError, FeatureRowMismatch, Unavailable
from leadre.store.features.context import context_of
from leadre.store.features.layout import VIEW
from leadre.store.features.list_reader import RetrievedRow, read_lists
from leadre.store.features.list_writer import ListWriter
from leadre.store.features.materialization import runs
from leadre.store.features.materialization.definitions import find_views
from leadre.store.features.materialization.newest import NewestRows
from leadre.store.features.materialization.processes import Servers
from leadre.store.features.materialization.run import Materialized, Share, materialize
from leadre.store.features.materialization.shards import Report, write_shard
from leadre.store.features.online_store import key_ttl_s, online_client
from leadre.store.features.point_in_time import RankerJoin, joined_frame
from leadre.store.features.row_times import row_times
from leadre.store.records.database import connect, session, transaction
from leadre.store.records.discretion import discreet
from leadre.traces import traced

if TYPE_CHECKING:
    import pandas as pd

    from leadre.derivation import Lists
    from leadre.indexing.ad_index import AdIndex

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
USER_VIEWS = ("user_profile", "interest_summary", "ad_behavior_sequence", "content_behavior_sequence")


class FeatureClient:
    """Feast for this system. One instance a process; loading it takes seconds, and the first read is done here.

    Args:
        feature_repo: folder of feature_store.yaml.
        environment: what that file's `${...}` stand for (`Settings.feast_environment()`); set in this process.

    Raises:
        ConfigError: there is no feature repository.
        Unavailable: PostgreSQL or Redis does not answer.
    """

    def __init__(self, feature_repo: Path, environment: Mapping[str, str]) -> None:
        if not (feature_repo / "feature_store.yaml").is_file():
            raise ConfigError(
                f"no feature_store.yaml in {feature_repo}: `leadre init DIR` writes a feature repository, "
                "LEADRE_FEATURE_REPO says where yours is"
            )
        os.environ.update(environment)
        # Feast warns that a registry cache lags by up to its ttl, which is what feature_store.yaml asks for.
        logging.getLogger("feast.repo_config").setLevel(logging.ERROR)
        self._database = connect(
            URL.create(
                "postgresql",
                username=environment["LEADRE_FEAST_DB_USER"],
                password=environment["LEADRE_FEAST_DB_PASSWORD"] or None,
                host=environment["LEADRE_FEAST_DB_HOST"],
                port=int(environment["LEADRE_FEAST_DB_PORT"]),
                database=environment["LEADRE_FEAST_DB_NAME"],
                query={"sslmode": environment["LEADRE_FEAST_DB_SSLMODE"]},
            ).render_as_string(hide_password=False),
            application_name="leadre features",
        )
        with _available():
            self.store = FeatureStore(repo_path=str(feature_repo))
            self._newest = NewestRows(find_views(self.store, USER_VIEWS))
            self._prompt_context = self.store.get_feature_service("prompt_context_v1")
            self._ranker_features = self.store.get_feature_service("ranker_features_v1")
            self._join = RankerJoin.over(self.store)
            self._online = online_client(self.store)
            self.servers = Servers(
                database_url=self._database.url.render_as_string(hide_password=False),
                online=self.store.config.online_store.connection_string,
                redis_type=str(self.store.config.online_store.redis_type.value),  # Feast's own type imports Feast
                sentinel_master=self.store.config.online_store.sentinel_master,
            )
        ttl_s = key_ttl_s(self.store.config.online_store, ["user_id"])
        self._writer = ListWriter(database=self._database, online=self._online, project=self.store.project, ttl_s=ttl_s)
        self.retrieval_lists([0])  # warm: the first read opens the connection

    def close(self) -> None:
        """Close the connections this client opened. Feast's own end with the process."""
        self._database.dispose()
        self._join.close()

    @traced("contexts")
    def contexts(self, user_ids: Sequence[int], *, now: datetime) -> list[Context]:
        """Return the context of each user as of `now`, in one online read; of an unknown user, an empty one.

        Behaviors of both domains in (occurred_at, ordinal) order, none later than `now`. The prompt's window in days
        is applied when it is rendered.

        Raises:
            Unavailable: Redis does not answer.
            FeatureRowMismatch: a row is missing, or lists of one sequence are not equally long.
        """
        if not user_ids:
            return []
        columns = self._read(self._prompt_context, [{"user_id": user_id} for user_id in user_ids])
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [context_of(row, user_id=user_id, now=now) for row, user_id in zip(rows, user_ids, strict=True)]

    @traced("refresh_user_features")
    def refresh_user_features(self, user_ids: Sequence[int], *, now: datetime) -> None:
        """Copy the newest profile, summary and sequences of some users, as of `now`, to the online store.

        What a materialization does for all users, for those about to be refreshed: each row with its own event time.
        A user without rows stays as it is.

        Raises:
            Unavailable: PostgreSQL or Redis does not answer.
        """
        with session(self._database) as connection, _available():
            self._newest.copy(connection, self._online, user_ids, until=now)

    @traced("write")
    def push_lists(self, lists: Sequence[RetrievalList], *, index: AdIndex) -> Lists:
        """Write lists with their user-side features: to the retrieval log, then to the online store, a batch each.

        See `ListWriter.write`, and there for what is raised; Redis's silence is `Unavailable`.
        """
        with _available():
            return self._writer.write(lists, index=index)

    def retrieval_lists(self, user_ids: Sequence[int]) -> list[RetrievedRow | None]:
        """Return each user's list as its record is online, in one round trip, of any age; None for a user without one.

        Raises:
            Unavailable: Redis does not answer.
        """
        with _available():
            return read_lists(self._online, user_ids, project=self.store.project)

    def row_times(self, user_id: int) -> dict[str, datetime | None]:
        """Return the event time of a user's row online in each view of users; None where there is none.

        Raises:
            Unavailable: Redis does not answer.
        """
        with _available():
            return row_times(self._online, user_id, (*USER_VIEWS, VIEW), project=self.store.project)

    def ranker_features(
        self, user_id: int | str, ad_ids: Sequence[int | str], *, now: datetime
    ) -> dict[str, list[Any]]:
        """Return the ranker's features of a user and its target ads, through Feast's on-demand view.

        A list that is older than the view's ttl or later than `now` counts as absent, as it does in the point-in-time
        join: the features have their neutral values.

        Args:
            user_id: the user, as its owner names it: a number or a text.
            ad_ids: the target ads, as their owner names them.
            now: when the ranker asks.

        Returns:
            As many values as `ad_ids` for `ad_id`, the very ids that were given, and every feature of the service, in
            its order. Ids inside features (`retrieved_ad_ids`) are Feast's 64-bit ones.

        Raises:
            InvalidInput: what is given is no id.
            Unavailable: Redis does not answer.
            FeatureRowMismatch: a row is missing.
        """
        if not ad_ids:
            return {}
        request = {"user_id": id_of(user_id), "request_time_s": now.timestamp()}
        columns = self._read(self._ranker_features, [{**request, "ad_id": ad_id} for ad_id in ids_of(ad_ids)])
        return {"ad_id": list(ad_ids), **{name: columns[name] for name in self._join.names}}

    def point_in_time(self, entity_frame: pd.DataFrame, *, features: Collection[str] | None = None) -> pd.DataFrame:
        """Join the ranker's features to training rows, each as of its own time.

        See `leadre.store.features.point_in_time.joined_frame`, and there for what is raised; PostgreSQL's silence is
        `Unavailable`.
        """
        with _available():
            return joined_frame(self._join, entity_frame, features=features)

    def materialize(
        self,
        *,
        now: datetime,
        views: Collection[str] = (),
        full: bool = False,
        shard_entities: int = runs.SHARD_ENTITIES,
        share: Share = lambda _, __: nullcontext(),
        report: Report = lambda _, __: None,
    ) -> Materialized:
        """Bring the online store up to `now`. See `leadre.store.features.materialization.run.materialize`.

        Raises:
            ConfigError: there is no such view, or it cannot be materialized.
            FeatureRowMismatch: rows did not arrive in the online store.
            Unavailable: PostgreSQL or Redis does not answer.
        """
        with _available():
            return materialize(
                self.store,
                self._database,
                self._online,
                now=now,
                views=views,
                full=full,
                shard_entities=shard_entities,
                share=share,
                report=report,
            )

    def materialize_shard(self) -> bool:
        """Write one shard of the materializations under way that nobody works on; return whether there was one.

        Raises:
            FeatureRowMismatch, Unavailable: as `materialize`.
        """
        views = {view.name: view for view in find_views(self.store)}
        with transaction(self._database) as connection:
            under_way = runs.unfinished(connection, views)
        with _available():
            return write_shard(self._database, self._online, views, under_way)

    def _read(self, service: Any, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
        with _available():
            response: OnlineResponse = self.store.get_online_features(features=service, entity_rows=rows)
        columns: dict[str, list[Any]] = response.to_dict()
        if any(len(values) != len(rows) for values in columns.values()):
            raise FeatureRowMismatch(
                f"{service.name} returned {sorted({len(v) for v in columns.values()})} values for {len(rows)} rows"
            )
        return columns


@contextmanager
def _available() -> Iterator[None]:
    """Turn a server's silence, in the four libraries Feast reaches it through, into `Unavailable`."""
    try:
        with discreet(psycopg.Error), discreet():
            yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise Unavailable(f"Redis does not answer: {error}; try again, or look whether it runs") from error
    except redis.ResponseError as error:  # no memory left, a replica, a script that runs too long
        raise Unavailable(f"Redis refuses: {error}; mend that, and try again") from error
    except (psycopg.OperationalError, OperationalError) as error:
        said = str(error).strip().splitlines()[0]
        raise Unavailable(f"PostgreSQL does not answer: {said}; try again, or look whether it runs") from error
