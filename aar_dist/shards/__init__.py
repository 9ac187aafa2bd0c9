"""HDF5 recordings -> balanced WebDataset shards with a Parquet manifest, built once."""
