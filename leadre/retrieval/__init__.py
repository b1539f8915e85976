"""Nearline retrieval: who is next, and how a user becomes a retrieval list. LEADRE §4.4.1."""
