"""From ads to S-IDs, and the trie over them. LEADRE §3.2, §3.3."""
