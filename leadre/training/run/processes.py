"""Several processes that train one model together, as `accelerate launch` and `torchrun` start them.

LEADRE §5.1.3 (the paper trains on several GPUs). Each holds a whole model and takes its share of every batch. They
read the same data and come to the same decisions; the main process alone writes what others read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

Value = TypeVar("Value")


def process_count() -> int:
    """Return how many train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Return which of them this is, from 0, the main process."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Return whether this process writes releases and checkpoints."""
    return process_number() == 0


def wait_for_all() -> None:
    """Go on when all of them are here."""
    if process_count() > 1:
        _state().wait_for_everyone()


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process through the context before the others."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()


def agreed(value: Value) -> Value:
    """Return the main process's value, on all of them."""
    if process_count() == 1:
        return value
    _state()
    values = [value]
    broadcast_object_list(values)
    return values[0]


def _state() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available())
