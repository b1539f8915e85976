"""The nouns of the system: ads, S-IDs, behaviors, users, retrieval lists. Standard library only."""
