"""Materialization: what is new in the sources of feature views, to the online store. LEADRE §4.4.1."""
