"""Lists of the past: until when a release read behaviors, what of a backfill is done, which index counted when.

Created: 2026-11-28 20:00:00.000000+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Before anything was promoted the index counts that lists of the past were made under, from the instant on at which a
# backfill went over to it. Later instants do not matter: an index of the past never shadows the live one.
BACKFILLED = """
CREATE VIEW backfilled_indexes AS
SELECT index_version, event_at FROM (
    SELECT event_at, index_version, lag(index_version) OVER (ORDER BY event_at) AS before
    FROM (
        SELECT DISTINCT ON (event_at) event_at, index_version
        FROM backfill_shards JOIN releases USING (release)
        WHERE event_at < (SELECT coalesce(min(promoted_at), 'infinity') FROM releases)
        ORDER BY event_at, backfill_shards.created_at DESC, release
    ) AS made
) AS changes WHERE index_version IS DISTINCT FROM before
"""


def upgrade() -> None:
    """Add a column, a table and a view."""
    op.add_column(
        "releases",
        sa.Column(
            "trained_until", sa.DateTime(timezone=True), comment="its training read no later behavior; null: unknown"
        ),
    )
    op.create_table(
        "backfill_shards",
        sa.Column("event_at", sa.DateTime(timezone=True), nullable=False, comment="the instant in the past"),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("users_hash", sa.BigInteger(), nullable=False),
        sa.Column(
            "user_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False, comment="empty once the shard is finished"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True, comment="why it could not be done"),
        sa.ForeignKeyConstraint(
            ["release"], ["releases.release"], name=op.f("fk_backfill_shards_release_releases"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("event_at", "release", "users_hash", name=op.f("pk_backfill_shards")),
        comment="Users whose lists as of an instant of the past are to be made, or were.",
    )
    op.create_index(
        "ix_backfill_shards_waiting",
        "backfill_shards",
        ["event_at", "release"],
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.execute(BACKFILLED)
    op.create_index("ix_impressions_occurred_at", "impressions", ["occurred_at"], postgresql_using="brin")


def downgrade() -> None:
    """Drop them again."""
    op.drop_index("ix_impressions_occurred_at", table_name="impressions")
    op.execute("DROP VIEW backfilled_indexes")
    op.drop_table("backfill_shards")
    op.drop_column("releases", "trained_until")
