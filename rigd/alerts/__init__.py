"""Alerts of this machine, and whether their receivers take them."""
