"""Which engine instance decodes what, so that none does more than the others. LEADRE §4.4.2, "Proxy Load Balancing"."""
