"""From a stream, a model and an objective to a trained model: engine, loop, checkpoints, tracking."""
