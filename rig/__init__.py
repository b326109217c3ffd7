"""Rig rebuilds and tunes one inference machine from YAML; this package is the operator's side of it."""

__version__ = "1.0"
