"""The past in the store: shards of a backfill, impressions with labels, sources as files. LEADRE §5.3."""
