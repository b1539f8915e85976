"""Simulated bids: whether an ad's bid is a real one.

The version before this one runs on beside it: the column has a default.

Created: 2026-11-23 16:30:00.000000+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "ads",
        sa.Column(
            "bid_simulated",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the bid is not a real one",
        ),
    )


def downgrade() -> None:
    """Drop it again."""
    op.drop_column("ads", "bid_simulated")
