"""Several processes on one port: the kernel spreads the connections (SO_REUSEPORT). LEADRE §4.4.1.

The parent serves nothing: it begins the processes, begins one anew that has died, and passes on the signal that ends
them.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_PAUSE_S = 1.0
"""Between the death of a process and its successor, so that one that cannot live costs little (ours)."""


def supervise(count: int, serve: Callable[[int], None]) -> None:
    """Run `serve(0)` to `serve(count - 1)` in processes of their own until SIGTERM or SIGINT.

    Args:
        count: of processes; one runs in this very process.
        serve: gets the number of its process, and returns after the signal.
    """
    if count == 1:
        serve(0)
        return
    running: dict[int, int] = {}
    ending = False

    def end(number: int, _: object) -> None:
        nonlocal ending
        ending = True
        for pid in running:
            os.kill(pid, number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for number in range(count):
        running[_started(number, serve)] = number
    while running:
        pid, status = os.wait()
        number = running.pop(pid)
        if ending:
            continue
        logger.error("server_process_died", extra={"number": number, "status": os.waitstatus_to_exitcode(status)})
        time.sleep(_PAUSE_S)
        if not ending:
            running[_started(number, serve)] = number


def _started(number: int, serve: Callable[[int], None]) -> int:
    if pid := os.fork():
        return pid
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        serve(number)
        status = 0
    finally:
        os._exit(status)  # nothing of the parent's ends with a child
