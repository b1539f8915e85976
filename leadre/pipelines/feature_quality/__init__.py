"""Feature quality: what is measured, on which samples, and what is still well. LEADRE §4.4.1, §5.3."""
