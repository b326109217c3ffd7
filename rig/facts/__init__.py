"""Facts of a machine: each takes one round trip and decides nothing."""
