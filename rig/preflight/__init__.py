"""Preflight: what a machine has, and what must be true of it before a deploy changes anything."""
