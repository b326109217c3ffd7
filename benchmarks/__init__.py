"""Measurements to repeat by hand; docs/performance.md has the results."""
