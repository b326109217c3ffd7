"""Programs that stand in for hardware on a lab machine: each is one file, as nothing else of the lab is there."""
