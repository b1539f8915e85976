"""The latency-sensitive module: ASGI applications that never run the LLM. LEADRE §4.4.1."""
