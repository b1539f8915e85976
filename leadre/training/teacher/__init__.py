"""The teacher: what the collaborative signal says of each code of each training target (LEADRE §3.3's trie; ours)."""
