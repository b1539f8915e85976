from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

WORKER = ("worker", "--pool=threads", "-c", "1", "-Q", "maintenance", "-l", "INFO")
WORKER += ("--without-gossip", "--without-mingle", "--without-heartbeat")
