"""Who learns: model, tokenizers, adapters, and the folder a release is kept in."""
