"""The paper's sentences, word for word.

LEADRE §4.2.1 (components), §4.2.2 (several wordings), §4.3.1 (explicit alignment). The paper's separator alternates
between ^ and `; here it is always ^.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from leadre.domain.behavior import Action

Part = Literal["profile", "summary", "sequence"]

LEARNABLE = "<Learnable Token>"
"""How the soft-prompt token is printed for humans; the LLM gets its id."""

RESPONSE = "\n[Response]:"
"""Ends every prompt: the next tokens are the S-ID's codes."""


AGE = "{}-year-old"
RESIDENCE = "resident in {}"
EDUCATION = "with a {} degree"
OCCUPATION = "working in {}"
CONSUMPTION = "with a {} consumption level"

SUMMARY = "The categories that have been frequently interacted recently are (format: category^interaction times): "
SUMMARY_SPUS = "The product units that have been frequently interacted recently are (format: unit^interaction times): "
SUMMARY_COUNT = "^{count} times"

SEQUENCE = "The most recent interaction behavior sequence details (format: time^behavior type^title) are "
SEQUENCE_TIME = "{days} days ago^{behavior_type}^"

AFTER_PART: dict[Part, str] = {"profile": ". ", "summary": "; ", "sequence": ". "}
"""What stands between a part and the next one."""

BEHAVIOR_TYPES = {
    Action.CLICK: "Click ad",
    Action.CONVERSION: "Conversion ad",
    Action.WATCH: "Play short video",
    Action.SEARCH: "Search",
}
"""The paper's words for positive actions (its example also writes "click on ad"; it names none for a search)."""

EXPLICIT_BEFORE = "Given the ad's detailed description \""
EXPLICIT_AFTER = '", what is the corresponding ad?'


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """One wording of the main task: what stands around the parts, and their order.

    LEADRE §4.2.2, "Multiple Prompt Templates".
    The learnable token stands between `opening` and `role`.
    """

    opening: str
    role: str
    question: str
    order: tuple[Part, ...]


_OPENING = (
    "The following is an instruction describing a task. "
    "Please give a response to complete this request appropriately.\n[Instruction]:"
)

WORDINGS = (
    Wording(
        opening=_OPENING,
        role="Assuming you are an ad recommender system, ",
        question=", what ad will the user be interested in next time?",
        order=("profile", "summary", "sequence"),
    ),
    Wording(
        opening=_OPENING,
        role="You recommend ads. This is what is known of a user: ",
        question=". Which ad will this user click next?",
        order=("summary", "profile", "sequence"),
    ),
    Wording(
        opening="Please answer the request below.\n[Instruction]:",
        role="Consider this user of a display advertising system: ",
        question=". Name the next ad of interest.",
        order=("sequence", "profile", "summary"),
    ),
    Wording(
        opening="Below is a task. Please complete it.\n[Instruction]:",
        role="As an ad retrieval system, read the user's data: ",
        question=". What ad comes next?",
        order=("profile", "sequence", "summary"),
    ),
)
"""The first is the paper's, and the one that serves; the others are ours."""
