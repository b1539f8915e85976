"""The experiment on a real clock: a User Server, the queue, a worker, the feature store. LEADRE §4.4.1."""
