"""Point in time: a ranker's features of training rows, each as of its own time. LEADRE §5.3."""

from leadre.store.features.point_in_time.columns import RankerJoin
from leadre.store.features.point_in_time.frame import joined_frame
from leadre.store.features.point_in_time.join import Stored

__all__ = ["RankerJoin", "Stored", "joined_frame"]
