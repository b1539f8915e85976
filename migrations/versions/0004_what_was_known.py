"""What was known when: state of users, rows that are appended by month, lists as records.

Summaries and sequences of before stay. The lists of the retrieval log do not: a list is a record now
(`leadre dataset lists --models existing` decodes the past again). Stop workers and importers of the version before.

Created: 2026-11-28 19:30:00.000000+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_XID = "(pg_current_xact_id())::text::bigint"
_CHANGED_IN = "number of the transaction that last wrote the row"
_TEXTS, _NUMBERS = postgresql.ARRAY(sa.Text()), postgresql.ARRAY(sa.BigInteger())

ON_CHANGE = """
CREATE FUNCTION row_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_in := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END $$;
CREATE TRIGGER users_changed BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION row_changed();
CREATE TRIGGER semantic_ids_changed BEFORE INSERT OR UPDATE ON semantic_ids
FOR EACH ROW EXECUTE FUNCTION row_changed();
CREATE TRIGGER releases_changed BEFORE INSERT OR UPDATE ON releases FOR EACH ROW EXECUTE FUNCTION row_changed();
"""

# One partition a month of `event_at`, as leadre.store.records.partitions makes them.
MONTHS = """
DO $$
DECLARE month timestamptz; name text;
BEGIN
    FOR month IN SELECT DISTINCT date_trunc('month', event_at, 'UTC') FROM {table}_before LOOP
        name := '{table}_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
        EXECUTE format('CREATE TABLE partitions.%I PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)', name, month,
                       date_trunc('month', month + interval '32 days', 'UTC'));
    END LOOP;
END $$
"""

STATE = """
INSERT INTO user_state (user_id, written, newest_behavior_at, summarized_until)
SELECT user_id, sum(written), max(newest), max(until) FROM (
    SELECT user_id, count(*) AS written, max(occurred_at) FILTER (WHERE action = ANY('{click,conversion,watch,search}'))
           AS newest, NULL::timestamptz AS until FROM behaviors GROUP BY user_id
    UNION ALL SELECT user_id, count(*), NULL, NULL FROM impressions GROUP BY user_id
    UNION ALL SELECT user_id, 0, NULL, max(event_at) FROM interest_summaries GROUP BY user_id
    UNION ALL SELECT user_id, 0, NULL, max(event_at) FROM behavior_sequences GROUP BY user_id
) AS parts GROUP BY user_id
"""


def _time(name: str, *, nullable: bool = False, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, comment=comment)


def _written() -> tuple[sa.Column[object], sa.Column[object]]:
    return (
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_in", sa.BigInteger(), server_default=sa.text(_XID), nullable=False, comment=_CHANGED_IN),
    )


def upgrade() -> None:
    """Create and alter; copy summaries and sequences into their months."""
    op.execute("CREATE SCHEMA IF NOT EXISTS partitions")
    for table in ("ads", "content_items"):
        op.add_column(
            table,
            sa.Column("spu", sa.Text(), server_default="", nullable=False, comment="standard product unit, §4.2.1 (3)"),
        )
    for table in ("behaviors", "impressions"):
        op.add_column(
            table,
            sa.Column(
                "known_at",
                sa.DateTime(timezone=True),
                server_default=sa.text("now()"),
                nullable=False,
                comment="from when the row counts as known",
            ),
        )
        op.execute(f"UPDATE {table} SET known_at = occurred_at")  # noqa: S608 - two names
    op.create_table(
        "user_state",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("written", sa.BigInteger(), server_default="0", nullable=False, comment="behaviors and impressions"),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        _time("newest_behavior_at", nullable=True, comment="of positive behaviors"),
        sa.Column(
            "summarized", sa.BigInteger(), server_default="0", nullable=False, comment="`written` at the last one"
        ),
        _time("summarized_until", nullable=True, comment="rows up to here are settled"),
        _time("leaves_at", nullable=True, comment="when a behavior next leaves the window"),
        _time("listed_at", nullable=True, comment="when the newest list was generated"),
        _time("list_behavior_at", nullable=True, comment="newest behavior of that list"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_state")),
        comment="What is known of each user's rows: what waits to be summarized, what was listed.",
    )
    op.create_index(
        "ix_user_state_unsummarized", "user_state", ["user_id"], postgresql_where=sa.text("written > summarized")
    )
    op.create_index("ix_user_state_leaves_at", "user_state", ["leaves_at"])
    op.create_index(
        "ix_user_state_unlisted",
        "user_state",
        ["newest_behavior_at"],
        postgresql_where=sa.text("listed_at IS NULL OR newest_behavior_at > list_behavior_at"),
    )
    op.execute(STATE)

    op.execute("CREATE TABLE interest_summaries_before AS SELECT * FROM interest_summaries")
    op.drop_table("interest_summaries")
    op.create_table(
        "interest_summaries",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        _time("event_at", comment="from when the content was known"),
        _time("newest_at", nullable=True, comment="time of the newest behavior in it"),
        sa.Column("categories", _TEXTS, nullable=False),
        sa.Column("counts", _NUMBERS, nullable=False),
        sa.Column("disliked_categories", _TEXTS, server_default="{}", nullable=False),
        sa.Column("disliked_counts", _NUMBERS, server_default="{}", nullable=False),
        sa.Column("spus", _TEXTS, server_default="{}", nullable=False),
        sa.Column("spu_counts", _NUMBERS, server_default="{}", nullable=False),
        sa.Column("disliked_spus", _TEXTS, server_default="{}", nullable=False),
        sa.Column("disliked_spu_counts", _NUMBERS, server_default="{}", nullable=False),
        *_written(),
        sa.PrimaryKeyConstraint("user_id", "event_at", name=op.f("pk_interest_summaries")),
        postgresql_partition_by="RANGE (event_at)",
        comment="Appended, never changed: a row counts from its event_at on.",
    )
    op.create_index("ix_interest_summaries_changed_in", "interest_summaries", ["changed_in"], postgresql_using="brin")
    op.execute(MONTHS.format(table="interest_summaries"))
    op.execute(
        "INSERT INTO interest_summaries (user_id, event_at, newest_at, categories, counts, disliked_categories,"
        " disliked_counts, created_at) SELECT user_id, event_at, event_at, categories, counts, disliked_categories,"
        " disliked_counts, created_at FROM interest_summaries_before"
    )
    op.drop_table("interest_summaries_before")

    op.execute("CREATE TABLE behavior_sequences_before AS SELECT * FROM behavior_sequences")
    op.drop_table("behavior_sequences")
    op.create_table(
        "behavior_sequences",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        _time("event_at", comment="from when the content was known"),
        _time("newest_at", nullable=True, comment="time of the newest behavior in it"),
        sa.Column("item_ids", _NUMBERS, nullable=False),
        sa.Column("actions", _TEXTS, nullable=False),
        sa.Column("titles", _TEXTS, nullable=False),
        sa.Column("occurred_at_s", postgresql.ARRAY(sa.Double()), nullable=False, comment="Unix seconds, oldest first"),
        sa.Column("ordinals", _NUMBERS, nullable=False),
        *_written(),
        sa.PrimaryKeyConstraint("user_id", "domain", "event_at", name=op.f("pk_behavior_sequences")),
        postgresql_partition_by="RANGE (event_at)",
        comment="Positive behaviors of the last 90 days, oldest first; appended, never changed.",
    )
    op.create_index("ix_behavior_sequences_changed_in", "behavior_sequences", ["changed_in"], postgresql_using="brin")
    op.execute(MONTHS.format(table="behavior_sequences"))
    op.execute(
        "INSERT INTO behavior_sequences (user_id, domain, event_at, newest_at, item_ids, actions, titles,"
        " occurred_at_s, ordinals, created_at) SELECT user_id, domain, event_at, event_at, item_ids, actions, titles,"
        " occurred_at_s, ordinals, created_at FROM behavior_sequences_before"
    )
    op.drop_table("behavior_sequences_before")

    op.drop_table("retrieval_log")
    op.create_table(
        "retrieval_log",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        _time("event_at", comment="when the list was generated"),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("index_version", sa.Text(), nullable=False),
        _time("behavior_at", nullable=True, comment="time of the newest behavior the list was made from"),
        sa.Column("retrieved_ad_ids", _NUMBERS, nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False, comment="the list with its features: docs/features.md"),
        *_written(),
        sa.PrimaryKeyConstraint("user_id", "event_at", "release", name=op.f("pk_retrieval_log")),
        postgresql_partition_by="RANGE (event_at)",
        comment="Every list ever written, with its user-side features: the offline half of the view retrieved_ads.",
    )
    op.create_index("ix_retrieval_log_changed_in", "retrieval_log", ["changed_in"], postgresql_using="brin")

    for table in ("users", "semantic_ids", "releases"):
        op.add_column(
            table,
            sa.Column("changed_in", sa.BigInteger(), server_default=sa.text(_XID), nullable=False, comment=_CHANGED_IN),
        )
        op.create_index(f"ix_{table}_changed_in", table, ["changed_in"])
    op.add_column("semantic_ids", sa.Column("first_category", sa.Text(), server_default="", nullable=False))
    op.add_column("semantic_ids", sa.Column("second_category", sa.Text(), server_default="", nullable=False))
    op.add_column("semantic_ids", sa.Column("advertiser_id", sa.BigInteger(), server_default="0", nullable=False))
    op.execute(
        "UPDATE semantic_ids SET first_category = ads.first_category, second_category = ads.second_category,"
        " advertiser_id = ads.advertiser_id FROM ads WHERE ads.ad_id = semantic_ids.ad_id"
    )
    op.execute(ON_CHANGE)


def downgrade() -> None:
    """Go back to the tables of before; the lists are lost again."""
    for table in ("users", "semantic_ids", "releases"):
        op.execute(f"DROP TRIGGER {table}_changed ON {table}")
        op.drop_index(f"ix_{table}_changed_in", table_name=table)
        op.drop_column(table, "changed_in")
    op.execute("DROP FUNCTION row_changed()")
    for column in ("first_category", "second_category", "advertiser_id"):
        op.drop_column("semantic_ids", column)

    op.drop_table("retrieval_log")
    op.create_table(
        "retrieval_log",
        sa.Column("log_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        _time("event_at", comment="when the list was generated"),
        _time("behavior_at", nullable=True, comment="time of the newest behavior the list was made from"),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("index_version", sa.Text(), nullable=False),
        sa.Column("retrieved_ad_ids", _NUMBERS, nullable=False),
        sa.Column("retrieved_sids", _TEXTS, nullable=False),
        sa.Column("retrieved_log_probabilities", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("retrieved_probabilities", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("retrieved_first_categories", _TEXTS, nullable=False),
        sa.Column("retrieved_second_categories", _TEXTS, nullable=False),
        sa.Column("retrieved_advertiser_ids", _NUMBERS, nullable=False),
        sa.Column(
            "retrieved_embeddings", postgresql.ARRAY(sa.REAL()), nullable=False, comment="row-major, count x width"
        ),
        sa.Column("retrieved_count", sa.Integer(), nullable=False),
        sa.Column("top_probability", sa.Double(), nullable=False),
        sa.Column("entropy", sa.Double(), nullable=False),
        sa.Column("categories", _TEXTS, nullable=False),
        sa.Column("category_probabilities", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("category_concentration", sa.Double(), nullable=False),
        sa.Column("mean_embedding", postgresql.ARRAY(sa.REAL()), nullable=False),
        sa.Column("expected_ecpm", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("log_id", name=op.f("pk_retrieval_log")),
    )
    op.create_index("ix_retrieval_log_user", "retrieval_log", ["user_id", "event_at"], unique=True)

    kept = {
        "behavior_sequences": "user_id, domain, event_at, item_ids, actions, titles, occurred_at_s, ordinals, "
        "created_at",
        "interest_summaries": "user_id, event_at, categories, counts, disliked_categories, disliked_counts, created_at",
    }
    keys = {"behavior_sequences": "user_id, domain, event_at", "interest_summaries": "user_id, event_at"}
    for table, columns in kept.items():
        op.execute(f"CREATE TABLE {table}_after AS SELECT {columns} FROM {table}")  # noqa: S608 - two names
        op.drop_table(table)
        op.execute(f"ALTER TABLE {table}_after RENAME TO {table}")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY ({keys[table]})")
        op.execute(f"ALTER TABLE {table} ALTER created_at SET DEFAULT now()")
        for column in columns.split(", "):
            op.execute(f"ALTER TABLE {table} ALTER {column} SET NOT NULL")
    for column in ("disliked_categories", "disliked_counts"):
        op.execute(f"ALTER TABLE interest_summaries ALTER {column} SET DEFAULT '{{}}'")
    op.drop_table("user_state")
    for table in ("behaviors", "impressions"):
        op.drop_column(table, "known_at")
    for table in ("ads", "content_items"):
        op.drop_column(table, "spu")
    op.execute("DROP SCHEMA IF EXISTS partitions CASCADE")
