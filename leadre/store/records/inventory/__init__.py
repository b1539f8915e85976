"""What servers and workers keep of the inventory in memory: which ads may be shown, to whom. LEADRE §4.4.1."""
