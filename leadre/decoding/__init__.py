"""Constrained decoding: from prompts to ads that exist. LEADRE §3.4."""
