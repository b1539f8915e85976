"""From embeddings to codes: the RQ-VAE and its rivals, and how they are fitted. LEADRE §3.2, Eq. 2-6."""
