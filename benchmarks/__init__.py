"""Measurements that a person repeats; what they gave is in docs/performance.md."""
