"""The registry of trained models: versions that are whole or absent, each verified when read."""
