"""This machine's alerts: list them, and test that each receiver accepts a message."""
