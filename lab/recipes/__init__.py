"""What the lab builds once and keeps: one module for each kind of artefact."""
