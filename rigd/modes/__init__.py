"""Engines of which one runs at a time: which of them runs, and how it is switched; the program rig-mode."""
