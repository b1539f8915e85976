"""An ad's description: the paper's template, filled from the ad's fields.

LEADRE §3.2, the feature mapping rule.
"""

from __future__ import annotations

import unicodedata

from leadre.domain.ads import Ad
from leadre.domain.identity import outward
from leadre.errors import InvalidInput

MAX_FIELD = 256
"""Characters of a field; what is longer is cut."""
MAX_ATTRIBUTES = 32
_BREAKING = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, lone surrogates, line and paragraph separators


def describe(ad: Ad) -> str:
    """Return the description t_a of an ad.

    Parts whose field is empty are left out. The text is untrusted: it may look like an S-ID or an instruction, and must
    only ever be tokenised without added tokens.

    Raises:
        InvalidInput: the ad has no name.
    """
    name = clean(ad.name)
    if not name:
        raise InvalidInput(f"ad {outward(ad.source_id)!r} has no name; an S-ID is made of it", column="name")
    attributes = [text for text in map(clean, ad.attributes[:MAX_ATTRIBUTES]) if text]
    parts = (
        ("The name of the ad is ", name),
        ("The product type is ", clean(ad.ad_type)),
        ("The first-level category is ", clean(ad.first_category)),
        ("The second-level category is ", clean(ad.second_category)),
        ("The attributes include: ", ", ".join(attributes)),
    )
    return "; ".join(lead + text for lead, text in parts if text) + "."


def clean(text: str) -> str:
    """Return a field as one line of at most `MAX_FIELD` characters: control characters are spaces, spaces are single.

    Unicode is composed (NFC) but not folded (NFKC): folding would make ASCII brackets out of full-width ones, and with
    them texts that look like S-IDs.
    """
    composed = unicodedata.normalize("NFC", text[: 4 * MAX_FIELD])
    spaced = "".join(" " if unicodedata.category(character) in _BREAKING else character for character in composed)
    return " ".join(spaced.split())[:MAX_FIELD].rstrip()
