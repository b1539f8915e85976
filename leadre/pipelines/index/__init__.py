"""The index's jobs: build, add new ads, publish, scale out. LEADRE §3.2."""
