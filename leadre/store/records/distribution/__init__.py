"""What Adaptive Resource Distribution asks: ARPU groups, clicks to count, what lists brought. LEADRE §4.4.1, §5.3."""
