"""The operator's side of a run: how machines are reached, and what is shown while one is deployed to."""
