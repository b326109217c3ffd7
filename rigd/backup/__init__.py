"""The program rig-backup: what cannot be made again is copied to another disk, checked there, and brought back."""
