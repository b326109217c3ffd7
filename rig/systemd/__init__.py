"""systemd: when a unit needs a restart, and the names of mount units."""
