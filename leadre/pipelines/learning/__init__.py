"""The release's jobs: train, calibrate, evaluate, record. LEADRE §4.3, §5.2."""
