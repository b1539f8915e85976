"""Training sets for rankers: lists as of past instants, and impressions joined to them. LEADRE §5.3."""
