"""What is learned from: examples, contexts of the past, preference pairs, the three tasks. LEADRE §4.2, §4.3."""
