"""Distributed pretraining of foundation models on sensor recordings."""
