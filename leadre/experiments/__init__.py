"""The paper's offline experiments, run again on the data at hand. LEADRE §5.2."""
