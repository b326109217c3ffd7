"""The operator's side of a run: connections to machines, and the output during a deploy."""
