"""Explains a user's list: the beam search level by level on the trie, and why an ad is in it or not.

LEADRE §3.4 (the search), §4.2.1 (the prompt). Over a live retriever; stores nothing. What it returns are frozen
dataclasses of plain values: `dataclasses.asdict` gives what JSON writes. It shows a user's personal data on purpose.
"""

from leadre.explain.ads import AdLabel, ad_labels
from leadre.explain.levels import Level, ListExplanation, Node, Retrieved, explain_list, retrieved_of
from leadre.explain.prompt import prompt_parts
from leadre.explain.shares import beam_tree
from leadre.explain.shown import Reason
from leadre.explain.why import Left, Neighbour, PathCode, Why, why

__all__ = [
    "AdLabel",
    "Left",
    "Level",
    "ListExplanation",
    "Neighbour",
    "Node",
    "PathCode",
    "Reason",
    "Retrieved",
    "Why",
    "ad_labels",
    "beam_tree",
    "explain_list",
    "prompt_parts",
    "retrieved_of",
    "why",
]
