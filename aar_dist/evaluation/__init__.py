"""Is it any good, on animals it has never seen: folds, the leak audit, baselines, embeddings, arrays."""
