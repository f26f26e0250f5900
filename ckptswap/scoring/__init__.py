"""How a variant is scored: what a swap changes is replayed, or the whole model is run."""
