"""The nearline processes: Celery tasks over leadre's pipelines. LEADRE §4.4.1, the latency-tolerant module."""
