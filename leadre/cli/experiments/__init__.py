"""Commands that measure: the paper's tables and figures, encoders, index sweeps. LEADRE §5.2."""
