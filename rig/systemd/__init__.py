"""systemd: when a unit needs a restart, and how its mount units are called."""
