"""What runs on the machine: programs that know nothing of the deploy that installed them."""
