"""Metrics of the machine that no other program has, written for node_exporter."""
