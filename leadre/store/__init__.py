"""The system of record (PostgreSQL) and the feature store (Feast): the only floor that speaks to either."""
