"""What a command or a worker does from end to end: index, train, refresh, report. LEADRE §4.4.1."""
