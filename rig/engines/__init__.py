"""Engines: compose files and units, the last good definition, alternatives, and the steps to a running engine."""
