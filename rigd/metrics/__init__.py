"""Figures of the machine that no other program shows, written for node_exporter."""
