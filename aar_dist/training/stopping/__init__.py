"""When to stop before the end, agreed by all ranks: a signal, a time limit, a launcher that is gone."""
