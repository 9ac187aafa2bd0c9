"""What is optimised: one module for each task."""
