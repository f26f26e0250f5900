"""Sweeps: which variants to score (plan), how (engine), what is remembered (journal), how sure we are."""
