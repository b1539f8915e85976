"""What features describe: users and ads. LEADRE §4.4.1."""

from feast import Entity, ValueType

user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.INT64,
    description="A person who sees ads; a 64-bit integer.",
    owner="leadre",
    tags={"paper": "§4.4.1"},
)

ad = Entity(
    name="ad",
    join_keys=["ad_id"],
    value_type=ValueType.INT64,
    description="An ad of the inventory; a 64-bit integer.",
    owner="leadre",
    tags={"paper": "§4.4.1"},
)
