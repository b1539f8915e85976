"""Ranking metrics, diversity and baselines. LEADRE §5.1.2."""
