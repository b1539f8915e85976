"""Chaos: real servers and workers that are killed at seeded instants, and what must hold none the less.

`python -m tests.chaos --seconds 60 --seed 1 --json`. LEADRE §4.4.1: the nearline module loses nothing.
"""
