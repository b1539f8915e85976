"""Months are made and dropped by functions of their owner: servers and workers need not own a table.

The version before this one makes months itself, and goes on doing so as the owner.

Created: 2026-11-28 23:10:00.000000+00:00
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None

# Both run as their owner: the search path is fixed, and names are ours or come out of the catalog.
FUNCTIONS = """
CREATE FUNCTION make_month(of_table text, month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    made text := of_table || to_char(month, '_YYYY_MM');
BEGIN
    IF of_table NOT IN ('interest_summaries', 'behavior_sequences', 'retrieval_log')
        OR month <> date_trunc('month', month)
    THEN
        RAISE EXCEPTION 'no table has a month %', month USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('partitions.' || of_table));  -- two writers at the turn of a month
    IF EXISTS (SELECT FROM pg_class WHERE relname = made AND relnamespace = 'partitions'::regnamespace) THEN
        RETURN;
    END IF;
    -- Attached, not created in place: that would lock out everybody who reads the table.
    EXECUTE format('CREATE TABLE partitions.%I (LIKE public.%I INCLUDING ALL)', made, of_table);
    EXECUTE format(
        'ALTER TABLE public.%I ATTACH PARTITION partitions.%I FOR VALUES FROM (%L) TO (%L)',
        of_table, made, month::timestamp AT TIME ZONE 'UTC', (month + interval '1 month')::timestamp AT TIME ZONE 'UTC'
    );
END $$;
CREATE FUNCTION drop_month(made text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE c.relname = made AND c.relnamespace = 'partitions'::regnamespace
    ) THEN
        RAISE EXCEPTION 'no table has this month' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('DROP TABLE partitions.%I', made);
END $$;
REVOKE EXECUTE ON FUNCTION make_month(text, date), drop_month(text) FROM PUBLIC;
"""


def upgrade() -> None:
    """Create both functions."""
    op.execute(FUNCTIONS)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP FUNCTION make_month(text, date); DROP FUNCTION drop_month(text)")
