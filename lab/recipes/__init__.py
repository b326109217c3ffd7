"""What the lab builds once and keeps: one module per artefact, each a function from nothing to a finished tree."""
