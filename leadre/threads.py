"""How the threads of one computation wait for each other: asleep, after a short spin.

OpenMP's default is to spin for milliseconds. Where another program has the CPU that the awaited thread needs, that
burns the time in which it could run: beside two busy processes on two cores a training took twelve times as long.
"""

from __future__ import annotations

import os

SPINS = "1000"
"""A few microseconds. Ten times as many gain a tenth where nobody else computes, and cost half again where one does
(docs/operations.md, "Beside other programs")."""


def wait_asleep() -> None:
    """Set the environment that OpenMP reads when torch is first loaded, in this process and its children.

    What the user has set of it stays. Call it before torch, faiss or scikit-learn is imported.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ["GOMP_SPINCOUNT"] = SPINS  # of GNU's OpenMP, which torch's wheels for Linux bring
