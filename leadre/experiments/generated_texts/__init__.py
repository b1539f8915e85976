"""Table 6's other two: ads generated as texts instead of S-IDs. LEADRE §5.2.6."""
