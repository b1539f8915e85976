"""From a retrieval list to ranking features: every formula, and the bytes a list is kept in. LEADRE §4.4.1, §5.3.

`user_side` when a list is written, `item_match` when it is read. NumPy alone; imports in milliseconds.
"""

from leadre.derivation.before import LIST_TTL_S, NEUTRAL, PREFIX_LEVELS, item_match, user_side
from leadre.derivation.list_record import pack, unpack
from leadre.derivation.lists import Lists

__all__ = ["LIST_TTL_S", "NEUTRAL", "PREFIX_LEVELS", "Lists", "item_match", "pack", "unpack", "user_side"]
