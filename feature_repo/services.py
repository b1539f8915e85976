"""Feature services: what a consumer asks for by name. A change of meaning is a new version. LEADRE §4.4.1."""

from ad_views import ad_features
from feast import FeatureService
from retrieval_views import item_match, retrieved_ad_features
from user_views import ad_behavior_sequence, content_behavior_sequence, interest_summary, user_profile

prompt_context_v1 = FeatureService(
    name="prompt_context_v1",
    features=[user_profile, interest_summary, ad_behavior_sequence, content_behavior_sequence],
    description="All that a prompt says about a user.",
    owner="leadre",
    tags={"paper": "§4.2.1"},
)

retrieval_list_v1 = FeatureService(
    name="retrieval_list_v1",
    features=[retrieved_ad_features],
    description="The user's retrieval list at the time of a request.",
    owner="leadre",
    tags={"paper": "§4.4.1"},
)

ranker_features_v1 = FeatureService(
    name="ranker_features_v1",
    features=[
        retrieved_ad_features,
        ad_features[["first_category", "second_category", "advertiser_id", "bid"]],
        item_match,
    ],
    description="What a downstream ranker reads for a user and a target ad.",
    owner="leadre",
    tags={"paper": "§5.3"},
)
