"""The list record's first format, from before there were fences: plain, one list at a time."""

from __future__ import annotations

import struct
import zlib

from leadre.derivation import Lists
from tests.derivation.worlds import plain


def first_format(lists: Lists, u: int) -> bytes:
    """Return list u as a record of format 1, which knows no epoch, sequence and source."""
    of_list = plain(lists, u)
    codes, directions, n = of_list["codes"], of_list["directions"], len(of_list["ad_ids"])
    names = sorted({*of_list["first_categories"], *of_list["second_categories"]})
    texts = [text.encode() for text in (of_list["release"], of_list["index_version"], *names)]
    lengths = [len(text) for text in texts]
    levels, width = int(lists.levels[u]), int(lists.widths[u])
    body = struct.pack("<BBHHHHHI", 1, levels, width, n, len(names), *lengths[:2], sum(lengths[2:]))
    behavior_at_s = float("nan") if of_list["behavior_at_s"] is None else of_list["behavior_at_s"]
    body += struct.pack("<dddd", of_list["generated_at_s"], behavior_at_s, of_list["entropy"], of_list["expected_ecpm"])
    body += struct.pack(f"<{width}f", *of_list["mean_embedding"])
    body += struct.pack(f"<{n}q{n}q", *of_list["ad_ids"], *of_list["advertiser_ids"])
    body += struct.pack(f"<{n}I{n}f", *of_list["shares"], *of_list["log_probabilities"])
    body += struct.pack(f"<{n * levels}H", *(code for sid in codes for code in sid))
    body += bytes(names.index(name) for name in (*of_list["first_categories"], *of_list["second_categories"]))
    body += struct.pack(f"<{n * width}b", *(number for direction in directions for number in direction))
    body += struct.pack(f"<{len(names)}H", *lengths[2:]) + b"".join(texts)
    return body + struct.pack("<I", zlib.crc32(body))
