"""The program rig-models: it fetches, verifies, lists and prunes model files."""
