"""The program rig-mode: it shows and switches engines of which one runs at a time."""
