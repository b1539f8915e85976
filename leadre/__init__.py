"""LEADRE: LLM-empowered display-ad retrieval and ranking features.

An open implementation of "LEADRE: Multi-Faceted Knowledge Enhanced LLM Empowered Display
Advertisement Recommender System", PVLDB 18(12), 2025.
"""

__version__ = "0.2.0"
