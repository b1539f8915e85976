"""What a user of each ARPU group is worth, computed once a day.

Created: 2026-11-28 23:00:00.000000+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "arpu_groups",
        sa.Column("arpu_group", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("users", sa.BigInteger(), nullable=False),
        sa.Column("mean_arpu", sa.Double(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False, comment="what a refresh of a user of it is worth"),
        sa.Column("computed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("arpu_group", name=op.f("pk_arpu_groups")),
        comment="The 25 ARPU groups, 0 the lowest; all are replaced once a day.",
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_table("arpu_groups")
