"""Preflight: a machine's state, and the conditions that must hold before a deploy changes anything."""
