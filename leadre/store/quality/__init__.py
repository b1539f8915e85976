"""What the quality of features is read from, in samples. LEADRE §4.4.1, §5.3."""
