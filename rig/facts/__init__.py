"""What is read from a machine: each fact is one round trip and decides nothing."""
