"""Recordings: the HDF5 contract, its writer, the converters of published layouts, and a simulated herd."""
