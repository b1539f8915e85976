"""From a retrieval list to ranking features: every formula, and the bytes a list is kept in. LEADRE §4.4.1, §5.3.

NumPy alone; imports in milliseconds. Feast's on-demand views import `item_match` and `retrieved_ad_features` from here.
"""

from leadre.derivation.columns import item_match, retrieved_ad_features
from leadre.derivation.list_record import pack, unpack
from leadre.derivation.lists import Lists
from leadre.derivation.neutral import LIST_TTL_S, NEUTRAL, PREFIX_LEVELS, USER_NEUTRAL

__all__ = [
    "LIST_TTL_S",
    "NEUTRAL",
    "PREFIX_LEVELS",
    "USER_NEUTRAL",
    "Lists",
    "item_match",
    "pack",
    "retrieved_ad_features",
    "unpack",
]
