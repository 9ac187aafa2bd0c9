"""What a run on a cluster will read, and when: the plan before any money is spent."""
