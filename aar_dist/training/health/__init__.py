"""Whether a run is well: steps left out, loss spikes, ranks that hang. The entry is :class:`monitor.Health`."""
