"""The program rig-backup: it copies irreplaceable data and models to another disk, verifies the copies, and restores
them."""
