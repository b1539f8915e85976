"""One release at work, for people: `retrieve`, `explain`, `features`. LEADRE §3.4, §4.4, §5.3.

What `leadre decode` does, without a terminal. It stores nothing, neither lists nor summaries: contexts are those that
the feature store holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self, overload

from leadre.api.catalog import Ads, Users
from leadre.domain.identity import id_of, ids_of
from leadre.domain.users import Context
from leadre.errors import InvalidInput
from leadre.explain import ListExplanation, Retrieved, Why, ad_labels, explain_list, retrieved_of, why
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.decode import retriever_of
from leadre.prompts.render import Prompt
from leadre.recipe import Recipe
from leadre.retrieval.retriever import Retriever
from leadre.settings import EngineKind, Precision, Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect, transaction
from leadre.store.records.source_ids import user_source_ids
from leadre.store.release.records import named_release

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Engine as Database

Who = int | str | Context
"""A user as its owner names it, or a context made by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """A user's ads, best first. `user` is as its owner names it; of a context made by hand, its `user_id`."""

    user: int | str
    release: str
    ads: tuple[Retrieved, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return the ads as rows: rank, ad, name, category, sid, log_probability, probability."""
        import pandas as pd

        columns = ["rank", "ad", "name", "category", "sid", "log_probability", "probability"]
        return pd.DataFrame([{**asdict(one), **asdict(one.ad)} for one in self.ads], columns=columns)


class Live:
    """A release, its index and its feature store, open. `leadre.load` makes one; close it, or use it in a `with`.

    Args:
        settings: where things run.
        database: the system of record.
        features: the feature store.
        retriever: of the release.
    """

    def __init__(
        self, settings: Settings, *, database: Database, features: FeatureClient, retriever: Retriever
    ) -> None:
        self.settings = settings
        self._database, self._features, self._retriever = database, features, retriever
        self.users, self.ads = Users(database), Ads(database, retriever.index)

    @classmethod
    def load(
        cls,
        release: str | None = None,
        *,
        settings: Settings | None = None,
        engine: EngineKind | None = None,
        precision: Precision | None = None,
    ) -> Live:
        """Load a release. See `leadre.load`, and there for what is raised."""
        settings = settings or Settings.from_environment()
        database = connect(settings.database_url, application_name="leadre api")
        features: FeatureClient | None = None
        try:
            with transaction(database) as connection:
                row = named_release(connection, release)
            features = FeatureClient(settings.feature_repo, settings.feast_environment())
            retriever = retriever_of(
                row, settings, database=database, features=features, kind=engine, precision=precision
            )
        except BaseException:
            if features is not None:
                features.close()
            database.dispose()
            raise
        return cls(settings, database=database, features=features, retriever=retriever)

    @property
    def release(self) -> str:
        """The release's name."""
        return self._retriever.release

    @property
    def recipe(self) -> Recipe:
        """What was trained."""
        return self._retriever.loaded.recipe

    @property
    def index(self) -> AdIndex:
        """The ads and their S-IDs, as arrays."""
        return self._retriever.index

    def context(self, user: int | str, *, now: datetime | None = None) -> Context:
        """Return what the feature store knows of a user; `dataclasses.replace` makes another context of it.

        Raises:
            InvalidInput: the catalog does not hold the user.
            Unavailable: Redis does not answer.
        """
        return self._contexts([user], now=_at(now))[0]

    def prompt(self, user: Who, *, now: datetime | None = None) -> Prompt:
        """Return what the LLM reads of a user; `leadre.explain.prompt_parts` gives its parts. Raises as `context`."""
        return self._retriever.prompt(self._contexts([user], now=_at(now))[0])

    def retrieve(
        self,
        users: Who | Sequence[Who],
        *,
        beam_width: int | None = None,
        filtered: bool = True,
        now: datetime | None = None,
    ) -> list[Retrieval]:
        """Return each user's ads, in the order given.

        Args:
            users: one or several: as their owner names them, or contexts made by hand.
            beam_width: ads a user; None: `LEADRE_BEAM_WIDTH`.
            filtered: only ads that run now, accept the user, and are not left out as the user's own; otherwise every
                ad of the index.
            now: the instant; None: the present. A context's own is not changed by it.

        Raises:
            InvalidInput: a user is not in the catalog, or `beam_width` is below 1.
            Unavailable: a server does not answer.
        """
        asked = [users] if isinstance(users, int | str | Context) else list(users)
        at = _at(now)
        contexts, loaded = self._contexts(asked, now=at), self._retriever.loaded
        filters = None
        if filtered:
            self._retriever.read_inventory(at)
            filters = loaded.filters(contexts, inventory=self._retriever.inventory, now=at)
        prompts = [loaded.encoder.encode(loaded.prompt(context)) for context in contexts]
        width = self._retriever.beam_width if beam_width is None else beam_width
        lists = loaded.engine.generate(prompts, beam_width=width, filters=filters)
        with transaction(self._database) as connection:
            labels = ad_labels(connection, {beam.ad_id for beams in lists for beam in beams})
        return [
            Retrieval(
                user=who.profile.user_id if isinstance(who, Context) else who,
                release=self.release,
                ads=retrieved_of(beams, labels),
            )
            for who, beams in zip(asked, lists, strict=True)
        ]

    @overload
    def explain(
        self, user: Who, ad: None = None, *, beam_width: int | None = None, now: datetime | None = None
    ) -> ListExplanation: ...
    @overload
    def explain(
        self, user: Who, ad: int | str, *, beam_width: int | None = None, now: datetime | None = None
    ) -> Why: ...
    def explain(
        self, user: Who, ad: int | str | None = None, *, beam_width: int | None = None, now: datetime | None = None
    ) -> ListExplanation | Why:
        """Return how a user's list came about, level by level; of one ad, why it is in it or not.

        Args:
            user: as its owner names it, or a context made by hand.
            ad: as its owner names it; None: the whole list.
            beam_width: ads of the list; None: `LEADRE_BEAM_WIDTH`.
            now: the instant; None: the present.

        Raises:
            ConfigError: the engine does not tell its steps: load with engine "auto".
            InvalidInput: the user is not in the catalog.
            Unavailable: a server does not answer.
        """
        at = _at(now)
        (context,) = self._contexts([user], now=at)
        with transaction(self._database) as connection:
            if ad is None:
                return explain_list(self._retriever, context, connection=connection, now=at, beam_width=beam_width)
            return why(self._retriever, context, id_of(ad), connection=connection, now=at, beam_width=beam_width)

    def features(self, user: int | str, ads: Sequence[int | str], *, now: datetime | None = None) -> pd.DataFrame:
        """Return `ranker_features_v1` as a ranker gets it: a row an ad, in the order given.

        They rest on the list that is stored for the user (`leadre refresh`), not on what `retrieve` gives now.

        Raises:
            InvalidInput: what is given is no id.
            Unavailable: Redis does not answer.
        """
        import pandas as pd

        return pd.DataFrame(self._features.ranker_features(user, ads, now=_at(now)))

    def close(self) -> None:
        """Close the connections and let go of the model."""
        self._features.close()
        self._database.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _contexts(self, users: Sequence[Who], *, now: datetime) -> list[Context]:
        named = [user for user in users if not isinstance(user, Context)]
        user_ids = ids_of(named)
        if user_ids:
            with transaction(self._database) as connection:
                known = user_source_ids(connection, user_ids)
            if unknown := [user for user, user_id in zip(named, user_ids, strict=True) if user_id not in known]:
                raise InvalidInput(f"user {unknown[0]!r} is not in the catalog; `leadre import` loads users")
        read = iter(self._features.contexts(user_ids, now=now))
        return [user if isinstance(user, Context) else next(read) for user in users]


def _at(now: datetime | None) -> datetime:
    return now or datetime.now(UTC)
