"""The three training tasks. LEADRE §4.3.1."""
