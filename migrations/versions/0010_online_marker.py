"""The mark by which a wiped online store is told from a whole one.

Created: 2026-11-28 23:00:00.000000+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table of one row at most."""
    op.create_table(
        "online_marker",
        sa.Column("online", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("marker", sa.Uuid(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("online", name=op.f("ck_online_marker_one_row")),
        sa.PrimaryKeyConstraint("online", name=op.f("pk_online_marker")),
        comment="One row at most: what an online store holds that was filled from this database.",
    )


def downgrade() -> None:
    """Remove the table."""
    op.drop_table("online_marker")
