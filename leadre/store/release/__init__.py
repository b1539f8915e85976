"""Releases on record: which one is live, and what a candidate must reach. LEADRE §4.4.1."""
