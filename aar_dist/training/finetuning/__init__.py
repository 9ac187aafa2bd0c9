"""From a stored model and labelled windows to a fine-tuned one: folds, freezing, selection, predictions."""
