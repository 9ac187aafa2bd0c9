"""Files for programs that know nothing of this one: models and arrays."""
