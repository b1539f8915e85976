"""Which of a user's behaviors the newest list was made from: by their number, and by the release that made it.

Created: 2026-11-28 22:45:00.000000+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STALE = "newest_behavior_at IS NOT NULL AND (listed_at IS NULL OR newest_behavior_at > list_behavior_at)"


def upgrade() -> None:
    """Add three columns to `user_state`, filled from the times there; the index of stale users goes by number."""
    for name, comment in (
        ("behavior_sequence", "positive behaviors ever written: the number of the newest"),
        ("listed_sequence", "`behavior_sequence` when the newest list was made"),
        ("listed_epoch", "`releases.sequence` of the release that made the newest list"),
    ):
        op.add_column(
            "user_state", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False, comment=comment)
        )
    op.execute(
        "UPDATE user_state SET behavior_sequence = 1, "  # noqa: S608 - our own names
        f"listed_sequence = CASE WHEN {STALE} THEN 0 ELSE 1 END WHERE newest_behavior_at IS NOT NULL"
    )
    op.drop_index("ix_user_state_unlisted", "user_state")
    op.create_index(
        "ix_user_state_unlisted",
        "user_state",
        ["newest_behavior_at"],
        postgresql_where=sa.text("behavior_sequence > listed_sequence"),
    )


def downgrade() -> None:
    """Remove the columns; the index goes by time again."""
    op.drop_index("ix_user_state_unlisted", "user_state")
    op.create_index(
        "ix_user_state_unlisted",
        "user_state",
        ["newest_behavior_at"],
        postgresql_where=sa.text("listed_at IS NULL OR newest_behavior_at > list_behavior_at"),
    )
    for name in ("listed_epoch", "listed_sequence", "behavior_sequence"):
        op.drop_column("user_state", name)
