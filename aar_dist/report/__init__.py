"""One page that shows what a model is worth: runs and folds in, one self-contained HTML file out."""
