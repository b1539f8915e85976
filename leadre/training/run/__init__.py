"""How a training runs: progress, checkpoints, validation, several processes."""
