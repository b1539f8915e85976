"""Commands that look after the feature store. LEADRE §4.4.1."""
