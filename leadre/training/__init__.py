"""The LLM learns S-IDs, interests and business value: SFT in stages, then DPO. LEADRE §4.3."""
