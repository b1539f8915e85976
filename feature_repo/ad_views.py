"""What is known of an ad. LEADRE §3.2, §4.4.1."""

from datetime import timedelta

from entities import ad
from feast import FeatureView, Field
from feast.types import Array, Bool, Float32, Float64, Int64, String
from sources import ads, semantic_ids

ad_features = FeatureView(
    name="ad_features",
    entities=[ad],
    ttl=timedelta(0),
    schema=[
        Field(name="name", dtype=String, description="The ad's name."),
        Field(name="ad_type", dtype=String, description="What kind of ad it is."),
        Field(name="first_category", dtype=String, description="Coarse category; empty when unknown."),
        Field(name="second_category", dtype=String, description="Category within the first; empty when unknown."),
        Field(name="attributes", dtype=Array(String), description="Further attributes of the description."),
        Field(name="advertiser_id", dtype=Int64, description="Whose ad it is; 0 when unknown."),
        Field(name="bid", dtype=Float64, tags={"unit": "currency per click"}, description="The advertiser's bid."),
        Field(name="live", dtype=Bool, description="Whether the ad may be shown."),
    ],
    source=ads,
    online=True,
    description="The ad as its owner describes it.",
    owner="leadre",
    tags={"paper": "§4.4.1", "rows": "updated in place"},
)

ad_index = FeatureView(
    name="ad_index",
    entities=[ad],
    ttl=timedelta(0),
    schema=[
        Field(name="sid", dtype=String, description="The ad's S-ID, `<a_51, b_10, c_67, d_93, e_0>`."),
        Field(name="embedding", dtype=Array(Float32), description="z_a of Eq. 4: the quantised embedding."),
        Field(name="ad_index_version", dtype=String, description="The index that this row is from."),
        Field(
            name="indexed_first_category",
            dtype=String,
            description="First category when the index was built, or empty.",
        ),
        Field(name="indexed_second_category", dtype=String, description="Category within it then; empty when unknown."),
        Field(name="indexed_advertiser_id", dtype=Int64, description="Whose ad it was then; 0 when unknown."),
    ],
    source=semantic_ids,
    online=True,
    description="The ad's place in the newest index that went live.",
    owner="leadre",
    tags={"paper": "§3.2"},
)
