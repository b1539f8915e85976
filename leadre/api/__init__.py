"""The Python API, for notebooks and scripts: one release, a few verbs. LEADRE §3.4, §4.4.

`leadre.load` gives a `Live`. What it returns are plain frozen dataclasses and pandas frames.
"""

from leadre.api.catalog import Ads, Users
from leadre.api.live import Live, Retrieval

__all__ = ["Ads", "Live", "Retrieval", "Users"]
