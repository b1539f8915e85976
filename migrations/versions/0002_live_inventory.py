"""Live inventory: targeting, schedules and budgets of ads, users' devices, and which transaction changed an ad.

The version before this one runs on beside it: columns have defaults, and triggers keep `changed_in` whoever writes.

Created: 2026-11-23 13:10:02.118943+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Transaction numbers, not times: a reader that remembers the oldest transaction still open at its last look misses no
# change, however late it is committed (leadre.store.records.inventory).
ON_CHANGE = """
CREATE FUNCTION ads_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_in := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END $$;
CREATE TRIGGER ads_changed BEFORE INSERT OR UPDATE ON ads FOR EACH ROW EXECUTE FUNCTION ads_changed();
"""

ON_DELETE = """
CREATE FUNCTION ads_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ad_deletions VALUES (pg_current_xact_id()::text::bigint) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER ads_deleted AFTER DELETE OR TRUNCATE ON ads FOR EACH STATEMENT EXECUTE FUNCTION ads_deleted();
"""


def upgrade() -> None:
    """Add the columns, the table and the triggers."""
    op.create_table(
        "ad_deletions",
        sa.Column("changed_in", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("changed_in", name=op.f("pk_ad_deletions")),
        comment="Numbers of the transactions that deleted ads; a trigger writes them.",
    )
    op.add_column(
        "ads",
        sa.Column(
            "targeting",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="who may see it; empty: everybody",
        ),
    )
    op.add_column(
        "ads",
        sa.Column(
            "starts_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="from when it may be shown; null: no bound",
        ),
    )
    op.add_column(
        "ads",
        sa.Column(
            "ends_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="from when it may not be shown any more; null: no bound",
        ),
    )
    op.add_column("ads", sa.Column("budget_exhausted", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column(
        "ads",
        sa.Column(
            "changed_in",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="number of the transaction that last changed the row; a trigger writes it",
        ),
    )
    op.create_check_constraint(op.f("ck_ads_schedule"), "ads", "starts_at < ends_at")
    op.create_index("ix_ads_changed_in", "ads", ["changed_in"], unique=False)
    op.add_column("users", sa.Column("device", sa.Text(), server_default="", nullable=False))
    op.execute(ON_CHANGE)
    op.execute(ON_DELETE)


def downgrade() -> None:
    """Drop them again."""
    op.execute("DROP TRIGGER ads_changed ON ads; DROP FUNCTION ads_changed()")
    op.execute("DROP TRIGGER ads_deleted ON ads; DROP FUNCTION ads_deleted()")
    op.drop_column("users", "device")
    op.drop_index("ix_ads_changed_in", table_name="ads")
    op.drop_constraint(op.f("ck_ads_schedule"), "ads", type_="check")
    for column in ("changed_in", "budget_exhausted", "ends_at", "starts_at", "targeting"):
        op.drop_column("ads", column)
    op.drop_table("ad_deletions")
