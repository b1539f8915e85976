from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis
from test_worker import wait_until

from leadre.store.features.client import FeatureClient
from leadre.store.features.materialization import runs
from leadre.store.features.materialization.definitions import find_views
from leadre.store.records.database import connect, transaction

pytestmark = pytest.mark.slow

WORKER = ("worker", "--pool=threads", "-c", "1", "-Q", "maintenance", "-l", "INFO")
WORKER += ("--without-gossip", "--without-mingle", "--without-heartbeat")
