"""The gateway's machine side: keys of clients, and the metrics of what they use."""
