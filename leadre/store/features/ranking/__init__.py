"""Ranking features for rankers that cannot wait. LEADRE §5.3. Imports in milliseconds; no torch, no Feast."""

from leadre.store.features.ranking.reader import RankingFeatures
from leadre.store.features.ranking.rows import NAMES, NUMBERS, RankingRows

__all__ = ["NAMES", "NUMBERS", "RankingFeatures", "RankingRows"]
