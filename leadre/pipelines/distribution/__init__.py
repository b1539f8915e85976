"""Adaptive Resource Distribution at work: groups once a day, the cut, the cheap lane. LEADRE §4.4.1."""
