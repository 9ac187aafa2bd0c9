"""Embeddings, backbones and heads."""
