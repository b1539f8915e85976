"""The modules of a transformers model, run in our own order: layers, attention in pieces, matrix products."""
