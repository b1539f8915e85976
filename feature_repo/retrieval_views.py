"""Retrieved ads as features: of the user when written, of a target ad when read. LEADRE §4.4.1, §5.3."""

from datetime import timedelta

from ad_views import ad_index
from entities import user
from feast import FeatureView, Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bytes, Float64, Int64, String
from sources import ranking_request, retrieved_ads_push

retrieved_ads = FeatureView(
    name="retrieved_ads",
    entities=[user],
    ttl=timedelta(days=7),  # leadre.derivation.LIST_TTL_S
    schema=[
        Field(name="retrieved_list", dtype=Bytes, description="The list as a record: docs/features.md, byte by byte."),
    ],
    source=retrieved_ads_push,
    online=True,
    description="A user's retrieval list, with what was derived from it when it was written.",
    owner="leadre",
    tags={"paper": "§4.4.1", "side": "user"},
)


# Feast compares what is no Array with the fields it infers, which carry no descriptions: docs/features.md has them.
@on_demand_feature_view(
    sources=[retrieved_ads, ranking_request],
    schema=[
        Field(name="retrieved_ad_ids", dtype=Array(Int64)),
        Field(name="retrieved_sids", dtype=Array(String)),
        Field(name="retrieved_log_probabilities", dtype=Array(Float64)),
        Field(name="retrieved_probabilities", dtype=Array(Float64)),
        Field(name="retrieved_first_categories", dtype=Array(String)),
        Field(name="retrieved_second_categories", dtype=Array(String)),
        Field(name="retrieved_advertiser_ids", dtype=Array(Int64)),
        Field(name="retrieved_embeddings", dtype=Array(Float64)),
        Field(name="retrieved_count", dtype=Int64),
        Field(name="top_probability", dtype=Float64),
        Field(name="entropy", dtype=Float64),
        Field(name="categories", dtype=Array(String)),
        Field(name="category_probabilities", dtype=Array(Float64)),
        Field(name="category_concentration", dtype=Float64),
        Field(name="mean_embedding", dtype=Array(Float64)),
        Field(name="expected_ecpm", dtype=Float64),
        Field(name="generated_at_s", dtype=Float64),
        Field(name="behavior_at_s", dtype=Float64),
        Field(name="release", dtype=String),
        Field(name="index_version", dtype=String),
    ],
    mode="python",
    description="The user-side features of a user's retrieval list at the time of a request.",
    owner="leadre",
    tags={"paper": "§4.4.1", "side": "user"},
)
def retrieved_ad_features(inputs):
    from leadre.derivation import retrieved_ad_features as read  # only this source text travels to where Feast runs it

    return read(inputs)


@on_demand_feature_view(
    sources=[retrieved_ads, ad_index, ranking_request],
    schema=[
        Field(name="hit", dtype=Int64),
        Field(name="rank", dtype=Int64),
        Field(name="probability", dtype=Float64),
        Field(name="prefix_mass_1", dtype=Float64),
        Field(name="prefix_mass_2", dtype=Float64),
        Field(name="prefix_mass_3", dtype=Float64),
        Field(name="prefix_mass_4", dtype=Float64),
        Field(name="longest_shared_prefix", dtype=Int64),
        Field(name="first_category_mass", dtype=Float64),
        Field(name="second_category_mass", dtype=Float64),
        Field(name="advertiser_mass", dtype=Float64),
        Field(name="max_cosine", dtype=Float64),
        Field(name="mean_cosine", dtype=Float64),
        Field(name="list_age_s", dtype=Float64),
    ],
    mode="python",
    description="Match scores of a target ad with its user's retrieval list.",
    owner="leadre",
    tags={"paper": "§5.3", "side": "item"},
)
def item_match(inputs):
    from leadre.derivation import item_match as derive  # only this source text travels to where Feast runs it

    return derive(inputs)
