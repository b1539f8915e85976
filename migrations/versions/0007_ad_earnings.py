"""What ads earned, kept by the statements that write impressions: nobody reads all impressions for an eCPM.

The version before this one runs on beside it: triggers keep the table, whoever writes. Filling it takes one pass over
the impressions, during which they cannot be written.

Created: 2026-11-28 22:10:00.000000+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Sums of numeric values are exact, so that they are the same in whatever order impressions came, changed and went.
# By ascending ad_id, so that two writers never deadlock over them within a statement.
ON_WRITE = """
CREATE FUNCTION impressions_earned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM ad_earnings;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO ad_earnings AS t (ad_id, impressions, ecpm_sum)
        SELECT ad_id, count(*), sum(ecpm::numeric) FROM added GROUP BY ad_id ORDER BY ad_id
        ON CONFLICT (ad_id) DO UPDATE
        SET impressions = t.impressions + excluded.impressions, ecpm_sum = t.ecpm_sum + excluded.ecpm_sum;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO ad_earnings AS t (ad_id, impressions, ecpm_sum)
        SELECT ad_id, -count(*), -sum(ecpm::numeric) FROM removed GROUP BY ad_id ORDER BY ad_id
        ON CONFLICT (ad_id) DO UPDATE
        SET impressions = t.impressions + excluded.impressions, ecpm_sum = t.ecpm_sum + excluded.ecpm_sum;
    ELSE
        INSERT INTO ad_earnings AS t (ad_id, impressions, ecpm_sum)
        SELECT ad_id, sum(shown), sum(ecpm) FROM (
            SELECT ad_id, 1 AS shown, ecpm::numeric FROM added
            UNION ALL SELECT ad_id, -1, -ecpm::numeric FROM removed
        ) AS changed GROUP BY ad_id HAVING sum(shown) <> 0 OR sum(ecpm) <> 0 ORDER BY ad_id
        ON CONFLICT (ad_id) DO UPDATE
        SET impressions = t.impressions + excluded.impressions, ecpm_sum = t.ecpm_sum + excluded.ecpm_sum;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER impressions_inserted AFTER INSERT ON impressions REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION impressions_earned();
CREATE TRIGGER impressions_updated AFTER UPDATE ON impressions REFERENCING NEW TABLE AS added OLD TABLE AS removed
FOR EACH STATEMENT EXECUTE FUNCTION impressions_earned();
CREATE TRIGGER impressions_deleted AFTER DELETE ON impressions REFERENCING OLD TABLE AS removed
FOR EACH STATEMENT EXECUTE FUNCTION impressions_earned();
CREATE TRIGGER impressions_truncated AFTER TRUNCATE ON impressions
FOR EACH STATEMENT EXECUTE FUNCTION impressions_earned();
"""


def upgrade() -> None:
    """Create the table and its triggers, and fill it."""
    op.create_table(
        "ad_earnings",
        sa.Column("ad_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("impressions", sa.BigInteger(), nullable=False),
        sa.Column("ecpm_sum", sa.Numeric(), nullable=False, comment="over those impressions"),
        sa.PrimaryKeyConstraint("ad_id", name=op.f("pk_ad_earnings")),
        comment="What each ad earned in its impressions; triggers on them write it.",
    )
    op.execute(ON_WRITE)  # first: it keeps writers out until this is committed
    op.execute("INSERT INTO ad_earnings SELECT ad_id, count(*), sum(ecpm::numeric) FROM impressions GROUP BY ad_id")


def downgrade() -> None:
    """Drop all of it."""
    for event in ("inserted", "updated", "deleted", "truncated"):
        op.execute(f"DROP TRIGGER impressions_{event} ON impressions")
    op.execute("DROP FUNCTION impressions_earned()")
    op.drop_table("ad_earnings")
