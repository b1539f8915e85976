"""Where features come from: the tables of the system of record.

`event_at` is when a row became true; `changed_in` is the number of the transaction that wrote it, by which
`leadre materialize` tells what is new.
"""

import os

from feast import Field, FileSource, PushSource, RequestSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.types import Float64


def stored(
    *,
    name: str,
    timestamp_field: str,
    created_timestamp_column: str,
    description: str,
    table: str = "",
    query: str = "",
) -> DataSource:
    """Return a source: what PostgreSQL says, or the Parquet files of it that feature_store.duckdb.yaml joins."""
    times = {"timestamp_field": timestamp_field, "created_timestamp_column": created_timestamp_column}
    said = {"name": name, "description": description, "owner": "leadre"}
    if folder := os.environ.get("LEADRE_FEAST_PARQUET"):
        return FileSource(path=f"{folder}/{name}", file_format=ParquetFormat(), **times, **said)
    return PostgreSQLSource(table=table, query=query, **times, **said)


users = stored(
    name="users",
    table="users",
    timestamp_field="event_at",
    created_timestamp_column="created_at",
    description="Profiles.",
)

interest_summaries = stored(
    name="interest_summaries",
    table="interest_summaries",
    timestamp_field="event_at",
    created_timestamp_column="created_at",
    description="Interaction counts by category and SPU: a row for each instant at which they changed for a user.",
)


def behavior_sequences(domain: str) -> DataSource:
    """Return one domain's half of the table; the prefix keeps the two views' features apart in a service."""
    return stored(
        name=f"{domain}_behavior_sequences",
        query=f"""
            SELECT user_id, event_at, created_at, changed_in, newest_at,
                   item_ids AS {domain}_item_ids, actions AS {domain}_actions, titles AS {domain}_titles,
                   occurred_at_s AS {domain}_occurred_at_s, ordinals AS {domain}_ordinals
            FROM behavior_sequences WHERE domain = '{domain}'
        """,  # noqa: S608 - the two calls below are the only ones
        timestamp_field="event_at",
        created_timestamp_column="created_at",
        description=f"Positive behaviors of the {domain} domain in the window, oldest first: a row for each change.",
    )


ad_behavior_sequences = behavior_sequences("ad")
content_behavior_sequences = behavior_sequences("content")

ads = stored(
    name="ads",
    table="ads",
    timestamp_field="event_at",
    created_timestamp_column="created_at",
    description="The inventory.",
)

# An index counts from its first promotion on, so that a candidate never shadows the live one; its last promotion
# repeats its rows, so that a rollback brings them back. Before any promotion those indexes count that lists of the past
# were made under.
semantic_ids = stored(
    name="semantic_ids",
    query="""
        SELECT s.ad_id, s.sid, s.embedding, s.index_version AS ad_index_version,
               s.first_category AS indexed_first_category, s.second_category AS indexed_second_category,
               s.advertiser_id AS indexed_advertiser_id, became.event_at, s.created_at,
               greatest(s.changed_in, promoted.changed_in) AS changed_in
        FROM semantic_ids s
        JOIN (
            SELECT index_version, min(promoted_at) AS first_at, max(promoted_at) AS last_at,
                   max(changed_in) AS changed_in
            FROM releases WHERE promoted_at IS NOT NULL GROUP BY index_version
        ) promoted USING (index_version)
        CROSS JOIN LATERAL (
            SELECT greatest(s.event_at, promoted.first_at) UNION SELECT greatest(s.event_at, promoted.last_at)
        ) became (event_at)
      UNION ALL
        SELECT s.ad_id, s.sid, s.embedding, s.index_version, s.first_category, s.second_category, s.advertiser_id,
               b.event_at, s.created_at, s.changed_in
        FROM semantic_ids s JOIN backfilled_indexes b USING (index_version)
    """,
    timestamp_field="event_at",
    created_timestamp_column="created_at",
    description="S-IDs, embeddings and categories as every index that was ever live has them.",
)

retrieval_log = stored(
    name="retrieval_log",
    query="SELECT user_id, event_at, created_at, changed_in, record AS retrieved_list FROM retrieval_log",
    timestamp_field="event_at",
    created_timestamp_column="created_at",
    description="Every retrieval list ever written.",
)

retrieved_ads_push = PushSource(
    name="retrieved_ads_push",
    batch_source=retrieval_log,
    description="Fresh retrieval lists from the nearline workers: to the online store only, the log is SQL.",
    owner="leadre",
)

ranking_request = RequestSource(
    name="ranking_request",
    schema=[Field(name="request_time_s", dtype=Float64, description="Unix time of the ranking request, in seconds.")],
    description="What only the request knows.",
    owner="leadre",
)
