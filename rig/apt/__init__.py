"""The keys that sign package repositories: parsed, fetched and checked against their pinned fingerprints."""
