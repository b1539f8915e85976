"""Ids: 64-bit integers inside, whatever the owner of the data uses outside."""

from __future__ import annotations

import hashlib

MAX_ID = 2**63 - 1


def stable_id(source_id: str) -> int:
    """Return the id of a thing whose owner names it by text: the same text gives the same id, on every machine.

    The first 63 bits of BLAKE2b; among 10 million ids a collision has probability 5e-6, and the importer
    refuses one (`InvalidInput`).

    Args:
        source_id: the owner's own name for the thing, e.g. an ASIN or a UUID.

    Returns:
        An integer in [0, 2^63).
    """
    return int.from_bytes(hashlib.blake2b(source_id.encode(), digest_size=8).digest(), "big") >> 1
