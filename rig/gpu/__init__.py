"""The graphics card: its driver, the steps that a machine needs, and the diagnosis of one. Plain functions."""
