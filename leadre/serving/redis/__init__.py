"""Redis for the request path: one pipelined connection a process, which nobody waits for long. LEADRE §4.4.1."""
