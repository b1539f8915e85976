"""Settled: up to when what was known of everybody stays as it is; from when an impression's outcome was known.

Created: 2026-11-28 20:30:00.000000+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LEAVES_AT = "when a behavior next leaves the window"
_CHANGES_AT = "when a behavior leaves the window, or one known ahead of its time comes in"


def upgrade() -> None:
    """Create the table, add the column."""
    op.create_table(
        "settled",
        sa.Column("everybody", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("everybody", name=op.f("ck_settled_one_row")),
        sa.PrimaryKeyConstraint("everybody", name=op.f("pk_settled")),
        comment="One row at most: what was known of anybody up to here is settled, as `user_state.summarized_until`.",
    )
    op.alter_column("user_state", "leaves_at", comment=_CHANGES_AT, existing_comment=_LEAVES_AT)
    op.add_column(
        "impressions",
        sa.Column(
            "outcome_at",
            sa.DateTime(timezone=True),
            comment="from when its click or conversion was known, if that was after the row",
        ),
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_column("impressions", "outcome_at")
    op.drop_table("settled")
    op.alter_column("user_state", "leaves_at", comment=_LEAVES_AT, existing_comment=_CHANGES_AT)
