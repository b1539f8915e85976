"""From ads to embeddings: descriptions, encoders, what was encoded before. LEADRE §3.2, Eq. 1."""
