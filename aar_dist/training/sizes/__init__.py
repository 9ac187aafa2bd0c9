"""What a model costs: FLOPs, memory, and the accelerator it is measured against."""
