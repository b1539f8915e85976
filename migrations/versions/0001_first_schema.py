"""The first schema: the tables of leadre.store.records.tables, and an empty schema for Feast's registry.

Created: 2026-11-23 10:13:35.735634+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    op.execute("CREATE SCHEMA IF NOT EXISTS feast_registry")
    op.create_table(
        "ads",
        sa.Column("ad_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ad_type", sa.Text(), server_default="", nullable=False),
        sa.Column("first_category", sa.Text(), server_default="", nullable=False),
        sa.Column("second_category", sa.Text(), server_default="", nullable=False),
        sa.Column("attributes", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("advertiser_id", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("bid", sa.Double(), server_default="0", nullable=False),
        sa.Column("live", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("event_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("bid >= 0", name=op.f("ck_ads_bid")),
        sa.PrimaryKeyConstraint("ad_id", name=op.f("pk_ads")),
        sa.UniqueConstraint("source_id", name=op.f("uq_ads_source_id")),
        comment="The inventory; event_at is when this version of the ad became true.",
    )
    op.create_table(
        "behavior_sequences",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("event_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("item_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("actions", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("titles", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("occurred_at_s", postgresql.ARRAY(sa.Double()), nullable=False, comment="Unix seconds, oldest first"),
        sa.Column("ordinals", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "domain", "event_at", name=op.f("pk_behavior_sequences")),
        comment="Positive behaviors of the last 90 days, oldest first; the lists of a row are equally long.",
    )
    op.create_table(
        "behaviors",
        sa.Column("behavior_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "ordinal",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="orders what happened in one instant",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("domain IN ('ad', 'content')", name=op.f("ck_behaviors_domain")),
        sa.PrimaryKeyConstraint("behavior_id", name=op.f("pk_behaviors")),
        comment="behavior_id is derived from the row (or given by its source), "
        "so that writing it twice changes nothing.",
    )
    op.create_index("ix_behaviors_user", "behaviors", ["user_id", "occurred_at", "ordinal"], unique=False)
    op.create_table(
        "content_items",
        sa.Column("content_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("content_id", name=op.f("pk_content_items")),
        sa.UniqueConstraint("source_id", name=op.f("uq_content_items_source_id")),
    )
    op.create_table(
        "impressions",
        sa.Column("impression_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("ad_id", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ecpm", sa.Double(), nullable=False),
        sa.Column("clicked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("converted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "simulated",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the eCPM is not a real one",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("ecpm >= 0", name=op.f("ck_impressions_ecpm")),
        sa.PrimaryKeyConstraint("impression_id", name=op.f("pk_impressions")),
        comment="eCPM is revenue per 1,000 impressions, as the ranking phase estimated it.",
    )
    op.create_index("ix_impressions_user", "impressions", ["user_id", "occurred_at"], unique=False)
    op.create_table(
        "index_versions",
        sa.Column("index_version", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("recipe", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("quality", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("index_version", name=op.f("pk_index_versions")),
    )
    op.create_table(
        "interest_summaries",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("event_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("categories", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("counts", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("disliked_categories", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("disliked_counts", postgresql.ARRAY(sa.BigInteger()), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "event_at", name=op.f("pk_interest_summaries")),
    )
    op.create_table(
        "retrieval_log",
        sa.Column("log_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("event_at", sa.DateTime(timezone=True), nullable=False, comment="when the list was generated"),
        sa.Column(
            "behavior_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="time of the newest behavior the list was made from",
        ),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("index_version", sa.Text(), nullable=False),
        sa.Column("retrieved_ad_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("retrieved_sids", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("retrieved_log_probabilities", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("retrieved_probabilities", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("retrieved_first_categories", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("retrieved_second_categories", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("retrieved_advertiser_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column(
            "retrieved_embeddings", postgresql.ARRAY(sa.REAL()), nullable=False, comment="row-major, count x width"
        ),
        sa.Column("retrieved_count", sa.Integer(), nullable=False),
        sa.Column("top_probability", sa.Double(), nullable=False),
        sa.Column("entropy", sa.Double(), nullable=False),
        sa.Column("categories", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("category_probabilities", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("category_concentration", sa.Double(), nullable=False),
        sa.Column("mean_embedding", postgresql.ARRAY(sa.REAL()), nullable=False),
        sa.Column("expected_ecpm", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("log_id", name=op.f("pk_retrieval_log")),
        comment="Every list ever written, with its user-side features: the offline half of the view retrieved_ads.",
    )
    op.create_index("ix_retrieval_log_user", "retrieval_log", ["user_id", "event_at"], unique=True)
    op.create_table(
        "users",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("age", sa.SmallInteger(), nullable=True),
        sa.Column("sex", sa.Text(), server_default="", nullable=False),
        sa.Column("residence", sa.Text(), server_default="", nullable=False),
        sa.Column("education_level", sa.Text(), server_default="", nullable=False),
        sa.Column("occupation", sa.Text(), server_default="", nullable=False),
        sa.Column("consumption_level", sa.Text(), server_default="", nullable=False),
        sa.Column("arpu", sa.Double(), server_default="0", nullable=False),
        sa.Column("arpu_group", sa.SmallInteger(), nullable=True, comment="0 (lowest ARPU) to 24; null until grouped"),
        sa.Column("event_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("age BETWEEN 0 AND 150", name=op.f("ck_users_age")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_users")),
        sa.UniqueConstraint("source_id", name=op.f("uq_users_source_id")),
    )
    op.create_table(
        "releases",
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("index_version", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("recipe", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["index_version"], ["index_versions.index_version"], name=op.f("fk_releases_index_version_index_versions")
        ),
        sa.CheckConstraint("status IN ('candidate', 'live', 'retired')", name=op.f("ck_releases_status")),
        sa.PrimaryKeyConstraint("release", name=op.f("pk_releases")),
        sa.UniqueConstraint("sequence", name=op.f("uq_releases_sequence")),
        comment="At most one release is live; the partial unique index enforces it.",
    )
    op.create_index(
        "uq_releases_live", "releases", ["status"], unique=True, postgresql_where=sa.text("status = 'live'")
    )
    op.create_table(
        "semantic_ids",
        sa.Column("index_version", sa.Text(), nullable=False),
        sa.Column("ad_id", sa.BigInteger(), nullable=False),
        sa.Column("sid", sa.Text(), nullable=False),
        sa.Column("codes", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column(
            "embedding", postgresql.ARRAY(sa.REAL()), nullable=False, comment="z_a of Eq. 4: the quantised embedding"
        ),
        sa.Column("event_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["index_version"],
            ["index_versions.index_version"],
            name=op.f("fk_semantic_ids_index_version_index_versions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("index_version", "ad_id", name=op.f("pk_semantic_ids")),
    )
    op.create_index("uq_semantic_ids_sid", "semantic_ids", ["index_version", "sid"], unique=True)


def downgrade() -> None:
    """Drop everything, Feast's registry too: what it describes is gone."""
    op.drop_index("uq_semantic_ids_sid", table_name="semantic_ids")
    op.drop_table("semantic_ids")
    op.drop_index("uq_releases_live", table_name="releases", postgresql_where=sa.text("status = 'live'"))
    op.drop_table("releases")
    op.drop_table("users")
    op.drop_index("ix_retrieval_log_user", table_name="retrieval_log")
    op.drop_table("retrieval_log")
    op.drop_table("interest_summaries")
    op.drop_table("index_versions")
    op.drop_index("ix_impressions_user", table_name="impressions")
    op.drop_table("impressions")
    op.drop_table("content_items")
    op.drop_index("ix_behaviors_user", table_name="behaviors")
    op.drop_table("behaviors")
    op.drop_table("behavior_sequences")
    op.drop_table("ads")
    op.execute("DROP SCHEMA IF EXISTS feast_registry CASCADE")
