"""The graphics card: which driver it needs, what is due on a machine, and what is wrong with one. Plain functions."""
