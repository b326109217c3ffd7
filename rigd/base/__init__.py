"""The shared parts of all rigd programs: errors, files, locks, progress, child processes, settings files and
metrics."""
