"""Retrieved ads as features: of the user when written, of a target ad when read. LEADRE §4.4.1, §5.3."""

from datetime import timedelta

from ad_views import ad_features, ad_index
from entities import user
from feast import FeatureView, Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int64, String
from sources import ranking_request, retrieved_ads_push

retrieved_ads = FeatureView(
    name="retrieved_ads",
    entities=[user],
    ttl=timedelta(days=7),  # leadre.derivation.LIST_TTL_S
    schema=[
        Field(name="retrieved_ad_ids", dtype=Array(Int64), description="The ads, best first."),
        Field(name="retrieved_sids", dtype=Array(String), description="Their S-IDs."),
        Field(
            name="retrieved_log_probabilities", dtype=Array(Float64), tags={"unit": "nats"}, description="Beam scores."
        ),
        Field(name="retrieved_probabilities", dtype=Array(Float64), description="Softmax of the scores over the list."),
        Field(name="retrieved_first_categories", dtype=Array(String), description="Their first categories."),
        Field(name="retrieved_second_categories", dtype=Array(String), description="Their second categories."),
        Field(name="retrieved_advertiser_ids", dtype=Array(Int64), description="Their advertisers."),
        Field(name="retrieved_embeddings", dtype=Array(Float32), description="Quantised embeddings, count x width."),
        Field(name="retrieved_count", dtype=Int64, tags={"unit": "ads"}, description="Length of the list."),
        Field(name="top_probability", dtype=Float64, description="Probability of the first ad."),
        Field(name="entropy", dtype=Float64, tags={"unit": "nats"}, description="Entropy of the probabilities."),
        Field(name="categories", dtype=Array(String), description="Distinct first categories, most probable first."),
        Field(name="category_probabilities", dtype=Array(Float64), description="Probability of each category."),
        Field(name="category_concentration", dtype=Float64, description="Probability of the first category."),
        Field(name="mean_embedding", dtype=Array(Float32), description="Embedding weighted by probability."),
        Field(name="expected_ecpm", dtype=Float64, tags={"unit": "currency per 1,000"}, description="eCPM likewise."),
        Field(
            name="generated_at_s", dtype=Float64, tags={"unit": "unix s"}, description="When the list was generated."
        ),
        Field(
            name="behavior_at_s",
            dtype=Float64,
            tags={"unit": "unix s"},
            description="Newest behavior it was made from.",
        ),
        Field(name="release", dtype=String, description="The release that made the list."),
        Field(name="index_version", dtype=String, description="The index whose S-IDs the list holds."),
    ],
    source=retrieved_ads_push,
    online=True,
    description="A user's retrieval list and the user-side features derived from it.",
    owner="leadre",
    tags={"paper": "§4.4.1", "side": "user"},
)


@on_demand_feature_view(
    sources=[retrieved_ads, ad_features, ad_index, ranking_request],
    # Feast compares these with the fields it infers, so they carry no descriptions: docs/features.md has them.
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
