"""Two lists made one: the LLM's and the collaborative signal's, ordered by a ranker. Ours; beside LEADRE §3.4."""
