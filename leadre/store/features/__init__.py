"""The feature store: Feast's online and historical features, and the log of lists behind them."""
