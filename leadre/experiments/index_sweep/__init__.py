"""Table 5 on one's own catalog: codebooks of many sizes, measured. LEADRE §5.2.5."""
