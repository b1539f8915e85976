"""Keeps what a command measured for the report, with the command line that made it. LEADRE §5.2."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from leadre.pipelines.results import keep_result
from leadre.settings import Settings


def keep_for_report(found: Settings, name: str, figures: Mapping[str, Any]) -> None:
    """Write a table's figures into LEADRE_HOME/results."""
    command = shlex.join(["leadre", *sys.argv[1:]])
    keep_result(found.home, name, figures, command=command, now=datetime.now(UTC))
