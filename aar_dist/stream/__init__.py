"""The segment stream: which segment comes at which place, and the batch it becomes."""
