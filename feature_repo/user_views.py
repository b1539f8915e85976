"""What a prompt says about a user. LEADRE §4.2.1 (2-5)."""

from datetime import timedelta

from entities import user
from feast import FeatureView, Field
from feast.types import Array, Float64, Int64, String
from sources import ad_behavior_sequences, content_behavior_sequences, interest_summaries, users

user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    ttl=timedelta(0),
    schema=[
        Field(name="age", dtype=Int64, tags={"unit": "years"}, description="Age; null when unknown."),
        Field(name="sex", dtype=String, description="Empty when unknown, like the texts below."),
        Field(name="residence", dtype=String, description="Where the user lives."),
        Field(name="education_level", dtype=String, description="Highest degree."),
        Field(name="occupation", dtype=String, description="Trade or profession."),
        Field(name="consumption_level", dtype=String, description="How much the user spends, in words."),
        Field(name="arpu", dtype=Float64, tags={"unit": "currency"}, description="Average revenue from the user."),
        Field(name="arpu_group", dtype=Int64, description="0 (lowest ARPU) to 24; null until grouped."),
        Field(name="device", dtype=String, description="What the user holds, e.g. ios; for targeting, not in prompts."),
    ],
    source=users,
    online=True,
    description="Profile fields of the prompt and of targeting, and the ARPU group of the refresh queue.",
    owner="leadre",
    tags={"paper": "§4.2.1 (2)", "rows": "updated in place"},
)

interest_summary = FeatureView(
    name="interest_summary",
    entities=[user],
    ttl=timedelta(0),
    schema=[
        Field(name="categories", dtype=Array(String), description="Liked categories, most frequent first."),
        Field(name="counts", dtype=Array(Int64), tags={"unit": "behaviors"}, description="Positive behaviors in each."),
        Field(name="disliked_categories", dtype=Array(String), description="Disliked categories, most frequent first."),
        Field(
            name="disliked_counts", dtype=Array(Int64), tags={"unit": "behaviors"}, description="Negative ones in each."
        ),
        Field(name="spus", dtype=Array(String), description="Liked standard product units, most frequent first."),
        Field(
            name="spu_counts", dtype=Array(Int64), tags={"unit": "behaviors"}, description="Positive behaviors in each."
        ),
        Field(
            name="disliked_spus",
            dtype=Array(String),
            description="Disliked standard product units, most frequent first.",
        ),
        Field(
            name="disliked_spu_counts",
            dtype=Array(Int64),
            tags={"unit": "behaviors"},
            description="Negative ones in each.",
        ),
    ],
    source=interest_summaries,
    online=True,
    description="Long-term interest by category and by standard product unit (SPU).",
    owner="leadre",
    tags={"paper": "§4.2.1 (3)"},
)


def sequence_fields(domain: str) -> list[Field]:
    """Return the five parallel lists of a behavior sequence, oldest behavior first."""
    return [
        Field(name=f"{domain}_item_ids", dtype=Array(Int64), description="The items."),
        Field(name=f"{domain}_actions", dtype=Array(String), description="What the user did with each."),
        Field(name=f"{domain}_titles", dtype=Array(String), description="How a prompt names each."),
        Field(name=f"{domain}_occurred_at_s", dtype=Array(Float64), tags={"unit": "unix s"}, description="When."),
        Field(name=f"{domain}_ordinals", dtype=Array(Int64), description="Order within one instant."),
    ]


ad_behavior_sequence = FeatureView(
    name="ad_behavior_sequence",
    entities=[user],
    ttl=timedelta(0),
    schema=sequence_fields("ad"),
    source=ad_behavior_sequences,
    online=True,
    description="Clicks and conversions of the last 90 days.",
    owner="leadre",
    tags={"paper": "§4.2.1 (4)"},
)

content_behavior_sequence = FeatureView(
    name="content_behavior_sequence",
    entities=[user],
    ttl=timedelta(0),
    schema=sequence_fields("content"),
    source=content_behavior_sequences,
    online=True,
    description="Full watches and searches of the last 90 days.",
    owner="leadre",
    tags={"paper": "§4.2.1 (5)"},
)
