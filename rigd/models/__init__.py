"""The program rig-models: model files that are fetched, verified, listed and pruned."""
