"""What every floor of the house stands on: errors, configuration, storage, hashing, jobs, plots."""
