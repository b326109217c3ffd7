"""What all programs of rigd share: errors, files, locks, progress, child processes, settings files and metrics."""
