"""The tables of the system of record. LEADRE §4.4.1's user and ad feature databases, and what they are made from.

Every table that is a Feast source has `event_at` (from when the row counts), `created_at` (when it was written) and
`changed_in` (the transaction that wrote it last: docs/adr/0006). Those that grow with every refresh are partitioned by
month of `event_at` (leadre.store.records.partitions), and their rows are appended, never changed.
Ids are 64-bit integers (leadre.domain.identity); `source_id` is the owner's own name for the thing.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

TIME = DateTime(timezone=True)


def _created_at() -> Column[object]:
    return Column("created_at", TIME, nullable=False, server_default=func.now())


def _changed_in() -> Column[object]:
    return Column(
        "changed_in",
        BigInteger,
        nullable=False,
        server_default=text("(pg_current_xact_id())::text::bigint"),
        comment="number of the transaction that last wrote the row",
    )


def _spu() -> Column[object]:
    return Column("spu", Text, nullable=False, server_default="", comment="standard product unit, §4.2.1 (3)")


def _known_at() -> Column[object]:
    return Column(
        "known_at", TIME, nullable=False, server_default=func.now(), comment="from when the row counts as known"
    )


ads = Table(
    "ads",
    metadata,
    Column("ad_id", BigInteger, primary_key=True, autoincrement=False),
    Column("source_id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("ad_type", Text, nullable=False, server_default=""),
    Column("first_category", Text, nullable=False, server_default=""),
    Column("second_category", Text, nullable=False, server_default=""),
    Column("attributes", ARRAY(Text), nullable=False, server_default="{}"),
    Column("advertiser_id", BigInteger, nullable=False, server_default="0"),
    Column("bid", Double, CheckConstraint("bid >= 0", name="bid"), nullable=False, server_default="0"),
    Column("live", Boolean, nullable=False, server_default=text("true")),
    Column("event_at", TIME, nullable=False),
    _created_at(),
    Column("targeting", JSONB, nullable=False, server_default="{}", comment="who may see it; empty: everybody"),
    Column("starts_at", TIME, comment="from when it may be shown; null: no bound"),
    Column("ends_at", TIME, comment="from when it may not be shown any more; null: no bound"),
    Column("budget_exhausted", Boolean, nullable=False, server_default=text("false")),
    Column(
        "changed_in",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="number of the transaction that last changed the row; a trigger writes it",
    ),
    Column("bid_simulated", Boolean, nullable=False, server_default=text("false"), comment="the bid is not a real one"),
    _spu(),
    CheckConstraint("starts_at < ends_at", name="schedule"),
    Index("ix_ads_changed_in", "changed_in"),
    comment="The inventory; event_at is when this version of the ad became true.",
)

ad_deletions = Table(
    "ad_deletions",
    metadata,
    Column("changed_in", BigInteger, primary_key=True, autoincrement=False),
    comment="Numbers of the transactions that deleted ads; a trigger writes them.",
)

users = Table(
    "users",
    metadata,
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("source_id", Text, nullable=False, unique=True),
    Column("age", SmallInteger, CheckConstraint("age BETWEEN 0 AND 150", name="age")),
    Column("sex", Text, nullable=False, server_default=""),
    Column("residence", Text, nullable=False, server_default=""),
    Column("education_level", Text, nullable=False, server_default=""),
    Column("occupation", Text, nullable=False, server_default=""),
    Column("consumption_level", Text, nullable=False, server_default=""),
    Column("arpu", Double, nullable=False, server_default="0"),
    Column("arpu_group", SmallInteger, comment="0 (lowest ARPU) to 24; null until grouped"),
    Column("event_at", TIME, nullable=False),
    _created_at(),
    Column("device", Text, nullable=False, server_default=""),
    _changed_in(),
    Index("ix_users_changed_in", "changed_in"),
)

arpu_groups = Table(
    "arpu_groups",
    metadata,
    Column("arpu_group", SmallInteger, primary_key=True, autoincrement=False),
    Column("users", BigInteger, nullable=False),
    Column("mean_arpu", Double, nullable=False),
    Column("value", Double, nullable=False, comment="what a refresh of a user of it is worth"),
    Column("computed_at", TIME, nullable=False),
    comment="The 25 ARPU groups, 0 the lowest; all are replaced once a day.",
)

user_state = Table(
    "user_state",
    metadata,
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("written", BigInteger, nullable=False, server_default="0", comment="behaviors and impressions"),
    Column("changed_at", TIME, nullable=False, server_default=func.now()),
    Column("newest_behavior_at", TIME, comment="of positive behaviors"),
    Column("summarized", BigInteger, nullable=False, server_default="0", comment="`written` at the last one"),
    Column("summarized_until", TIME, comment="rows up to here are settled"),
    Column("leaves_at", TIME, comment="when a behavior leaves the window, or one known ahead of its time comes in"),
    Column("listed_at", TIME, comment="when the newest list was generated"),
    Column("list_behavior_at", TIME, comment="newest behavior of that list"),
    Column(
        "behavior_sequence",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="positive behaviors ever written: the number of the newest",
    ),
    Column(
        "listed_sequence",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="`behavior_sequence` when the newest list was made",
    ),
    Column(
        "listed_epoch",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="`releases.sequence` of the release that made the newest list",
    ),
    Index("ix_user_state_unsummarized", "user_id", postgresql_where=text("written > summarized")),
    Index("ix_user_state_leaves_at", "leaves_at"),
    Index(
        "ix_user_state_unlisted",
        "newest_behavior_at",
        postgresql_where=text("behavior_sequence > listed_sequence"),
    ),
    comment="What is known of each user's rows: what waits to be summarized, what was listed.",
)

settled = Table(
    "settled",
    metadata,
    Column("everybody", Boolean, CheckConstraint("everybody", name="one_row"), primary_key=True, server_default="true"),
    Column("until", TIME, nullable=False),
    comment="One row at most: what was known of anybody up to here is settled, as `user_state.summarized_until`.",
)

online_marker = Table(
    "online_marker",
    metadata,
    Column("online", Boolean, CheckConstraint("online", name="one_row"), primary_key=True, server_default="true"),
    Column("marker", Uuid, nullable=False),
    Column("set_at", TIME, nullable=False, server_default=func.now()),
    comment="One row at most: what an online store holds that was filled from this database.",
)

content_items = Table(
    "content_items",
    metadata,
    Column("content_id", BigInteger, primary_key=True, autoincrement=False),
    Column("source_id", Text, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("category", Text, nullable=False, server_default=""),
    _created_at(),
    _spu(),
)

behaviors = Table(
    "behaviors",
    metadata,
    Column("behavior_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, nullable=False),
    Column("domain", Text, CheckConstraint("domain IN ('ad', 'content')", name="domain"), nullable=False),
    Column("action", Text, nullable=False),
    Column("item_id", BigInteger, nullable=False),
    Column("occurred_at", TIME, nullable=False),
    Column("ordinal", BigInteger, nullable=False, server_default="0", comment="orders what happened in one instant"),
    _created_at(),
    _known_at(),
    Index("ix_behaviors_user", "user_id", "occurred_at", "ordinal"),
    comment="behavior_id is derived from the row (or given by its source), so that writing it twice changes nothing.",
)

impressions = Table(
    "impressions",
    metadata,
    Column("impression_id", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", BigInteger, nullable=False),
    Column("ad_id", BigInteger, nullable=False),
    Column("occurred_at", TIME, nullable=False),
    Column("ecpm", Double, CheckConstraint("ecpm >= 0", name="ecpm"), nullable=False),
    Column("clicked", Boolean, nullable=False, server_default=text("false")),
    Column("converted", Boolean, nullable=False, server_default=text("false")),
    Column("simulated", Boolean, nullable=False, server_default=text("false"), comment="the eCPM is not a real one"),
    _created_at(),
    _known_at(),
    Column("outcome_at", TIME, comment="from when its click or conversion was known, if that was after the row"),
    Index("ix_impressions_user", "user_id", "occurred_at"),
    Index("ix_impressions_occurred_at", "occurred_at", postgresql_using="brin"),
    comment="eCPM is revenue per 1,000 impressions, as the ranking phase estimated it.",
)

ad_earnings = Table(
    "ad_earnings",
    metadata,
    Column("ad_id", BigInteger, primary_key=True, autoincrement=False),
    Column("impressions", BigInteger, nullable=False),
    Column("ecpm_sum", Numeric, nullable=False, comment="over those impressions"),
    comment="What each ad earned in its impressions; triggers on them write it.",
)

interest_summaries = Table(
    "interest_summaries",
    metadata,
    Column("user_id", BigInteger, primary_key=True),
    Column("event_at", TIME, primary_key=True, comment="from when the content was known"),
    Column("newest_at", TIME, comment="time of the newest behavior in it"),
    Column("categories", ARRAY(Text), nullable=False),
    Column("counts", ARRAY(BigInteger), nullable=False),
    Column("disliked_categories", ARRAY(Text), nullable=False, server_default="{}"),
    Column("disliked_counts", ARRAY(BigInteger), nullable=False, server_default="{}"),
    Column("spus", ARRAY(Text), nullable=False, server_default="{}"),
    Column("spu_counts", ARRAY(BigInteger), nullable=False, server_default="{}"),
    Column("disliked_spus", ARRAY(Text), nullable=False, server_default="{}"),
    Column("disliked_spu_counts", ARRAY(BigInteger), nullable=False, server_default="{}"),
    _created_at(),
    _changed_in(),
    Index("ix_interest_summaries_changed_in", "changed_in", postgresql_using="brin"),
    postgresql_partition_by="RANGE (event_at)",
    comment="Appended, never changed: a row counts from its event_at on.",
)

behavior_sequences = Table(
    "behavior_sequences",
    metadata,
    Column("user_id", BigInteger, primary_key=True),
    Column("domain", Text, primary_key=True),
    Column("event_at", TIME, primary_key=True, comment="from when the content was known"),
    Column("newest_at", TIME, comment="time of the newest behavior in it"),
    Column("item_ids", ARRAY(BigInteger), nullable=False),
    Column("actions", ARRAY(Text), nullable=False),
    Column("titles", ARRAY(Text), nullable=False),
    Column("occurred_at_s", ARRAY(Double), nullable=False, comment="Unix seconds, oldest first"),
    Column("ordinals", ARRAY(BigInteger), nullable=False),
    _created_at(),
    _changed_in(),
    Index("ix_behavior_sequences_changed_in", "changed_in", postgresql_using="brin"),
    postgresql_partition_by="RANGE (event_at)",
    comment="Positive behaviors of the last 90 days, oldest first; appended, never changed.",
)

index_versions = Table(
    "index_versions",
    metadata,
    Column("index_version", Text, primary_key=True),
    Column("uri", Text, nullable=False),
    Column("recipe", JSONB, nullable=False),
    Column("quality", JSONB, nullable=False),
    _created_at(),
)

semantic_ids = Table(
    "semantic_ids",
    metadata,
    Column("index_version", Text, ForeignKey("index_versions.index_version", ondelete="CASCADE"), primary_key=True),
    Column("ad_id", BigInteger, primary_key=True),
    Column("sid", Text, nullable=False),
    Column("codes", ARRAY(BigInteger), nullable=False),
    Column("embedding", ARRAY(REAL), nullable=False, comment="z_a of Eq. 4: the quantised embedding"),
    Column("event_at", TIME, nullable=False),
    _created_at(),
    _changed_in(),
    Column("first_category", Text, nullable=False, server_default=""),
    Column("second_category", Text, nullable=False, server_default=""),
    Column("advertiser_id", BigInteger, nullable=False, server_default="0"),
    Index("ix_semantic_ids_changed_in", "changed_in"),
    Index("uq_semantic_ids_sid", "index_version", "sid", unique=True),
)

releases = Table(
    "releases",
    metadata,
    Column("release", Text, primary_key=True),
    Column("sequence", BigInteger, Identity(always=True), nullable=False, unique=True),
    Column("index_version", Text, ForeignKey("index_versions.index_version"), nullable=False),
    Column("uri", Text, nullable=False),
    Column("recipe", JSONB, nullable=False),
    Column("metrics", JSONB, nullable=False),
    Column(
        "status", Text, CheckConstraint("status IN ('candidate', 'live', 'retired')", name="status"), nullable=False
    ),
    Column("promoted_at", TIME),
    _created_at(),
    _changed_in(),
    Column("trained_until", TIME, comment="its training read no later behavior; null: unknown"),
    Index("ix_releases_changed_in", "changed_in"),
    Index("uq_releases_live", "status", unique=True, postgresql_where=text("status = 'live'")),
    comment="At most one release is live; the partial unique index enforces it.",
)

retrieval_log = Table(
    "retrieval_log",
    metadata,
    Column("user_id", BigInteger, primary_key=True),
    Column("event_at", TIME, primary_key=True, comment="when the list was generated"),
    Column("release", Text, primary_key=True),
    Column("index_version", Text, nullable=False),
    Column("behavior_at", TIME, comment="time of the newest behavior the list was made from"),
    Column("retrieved_ad_ids", ARRAY(BigInteger), nullable=False),
    Column("record", LargeBinary, nullable=False, comment="the list with its features: docs/features.md"),
    _created_at(),
    _changed_in(),
    Index("ix_retrieval_log_changed_in", "changed_in", postgresql_using="brin"),
    postgresql_partition_by="RANGE (event_at)",
    comment="Every list ever written, with its user-side features: the offline half of the view retrieved_ads.",
)

materializations = Table(
    "materializations",
    metadata,
    Column("run", BigInteger, Identity(always=True), primary_key=True),
    Column("view", Text, nullable=False),
    Column("written_from", BigInteger, nullable=False, comment="new is what it or a later one wrote"),
    Column("waiting_from", BigInteger, nullable=False, comment="oldest that may have been before its time"),
    Column("true_after", TIME, comment="new is also what has become true since"),
    Column("until", TIME, nullable=False, comment="rows of a later event time wait"),
    Column("next_written_from", BigInteger, nullable=False, comment="where the next run begins"),
    Column("next_waiting_from", BigInteger, nullable=False),
    Column("entities", BigInteger, nullable=False, comment="with new rows, when the run was planned"),
    Column("started_at", TIME, nullable=False, server_default=func.now()),
    Column("finished_at", TIME),
    Index("uq_materializations_view", "view", unique=True, postgresql_where=text("finished_at IS NULL")),
    comment="The newest finished run of each feature view, and the one under way.",
)

materialization_shards = Table(
    "materialization_shards",
    metadata,
    Column("run", BigInteger, ForeignKey("materializations.run", ondelete="CASCADE"), primary_key=True),
    Column("shard", BigInteger, primary_key=True, autoincrement=False),
    Column("low", BigInteger, comment="least entity id; null: no bound"),
    Column("high", BigInteger, comment="where the next shard begins; null: no bound"),
    Column("read", BigInteger, comment="rows; null until the shard is finished"),
    Column("written", BigInteger, comment="of them, those newer than what was online"),
)

backfill_shards = Table(
    "backfill_shards",
    metadata,
    Column("event_at", TIME, primary_key=True, comment="the instant in the past"),
    Column("release", Text, ForeignKey("releases.release", ondelete="CASCADE"), primary_key=True),
    Column("users_hash", BigInteger, primary_key=True, autoincrement=False),
    Column("user_ids", ARRAY(BigInteger), nullable=False, comment="empty once the shard is finished"),
    _created_at(),
    Column("finished_at", TIME),
    Column("problem", Text, comment="why it could not be done"),
    Index("ix_backfill_shards_waiting", "event_at", "release", postgresql_where=text("finished_at IS NULL")),
    comment="Users whose lists as of an instant of the past are to be made, or were.",
)
