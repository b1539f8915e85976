"""The Python API, for notebooks and scripts: one live release, a few verbs. LEADRE §3.4, §4.4."""
