"""What is written to a machine, where pyinfra's own operations cannot say it without a change on every run."""
