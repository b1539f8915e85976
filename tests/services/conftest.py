"""A folder for homes that the servers' account can write below: pytest's own is closed to it under root."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that everybody passes through, removed after the module."""
    folder = Path(tempfile.mkdtemp(prefix="leadre-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)
