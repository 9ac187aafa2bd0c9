"""What all folds say together, as a reviewer asks for it; :func:`aar_dist.evaluation.results.gather` is the entry."""
