"""Import of a user's own data, CSV or Parquet: `folder.import_tabular`. docs/data_format.md is the user's side."""
