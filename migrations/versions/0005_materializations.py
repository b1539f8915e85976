"""Materializations: what of each feature view is in the online store, and the shards of the runs under way.

The version before this one does not look at them.

Created: 2026-11-28 20:30:00.000000+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _time(name: str, *, nullable: bool = True, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, comment=comment)


def upgrade() -> None:
    """Create two tables."""
    op.create_table(
        "materializations",
        sa.Column("run", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("view", sa.Text(), nullable=False),
        sa.Column("written_from", sa.BigInteger(), nullable=False, comment="new is what it or a later one wrote"),
        sa.Column("waiting_from", sa.BigInteger(), nullable=False, comment="oldest that may have been before its time"),
        _time("true_after", comment="new is also what has become true since"),
        _time("until", nullable=False, comment="rows of a later event time wait"),
        sa.Column("next_written_from", sa.BigInteger(), nullable=False, comment="where the next run begins"),
        sa.Column("next_waiting_from", sa.BigInteger(), nullable=False),
        sa.Column("entities", sa.BigInteger(), nullable=False, comment="with new rows, when the run was planned"),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        _time("finished_at"),
        sa.PrimaryKeyConstraint("run", name=op.f("pk_materializations")),
        comment="The newest finished run of each feature view, and the one under way.",
    )
    op.create_index(
        "uq_materializations_view",
        "materializations",
        ["view"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "materialization_shards",
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column("shard", sa.BigInteger(), nullable=False),
        sa.Column("low", sa.BigInteger(), nullable=True, comment="least entity id; null: no bound"),
        sa.Column("high", sa.BigInteger(), nullable=True, comment="where the next shard begins; null: no bound"),
        sa.Column("read", sa.BigInteger(), nullable=True, comment="rows; null until the shard is finished"),
        sa.Column("written", sa.BigInteger(), nullable=True, comment="of them, those newer than what was online"),
        sa.ForeignKeyConstraint(
            ["run"],
            ["materializations.run"],
            name=op.f("fk_materialization_shards_run_materializations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run", "shard", name=op.f("pk_materialization_shards")),
    )


def downgrade() -> None:
    """Drop them; the version before materializes by event time."""
    op.drop_table("materialization_shards")
    op.drop_table("materializations")
