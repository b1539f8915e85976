"""What the LLM reads: context to prompt to token ids. LEADRE §4.2."""
