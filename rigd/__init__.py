"""The programs that run on the machine; they know nothing of the deploy that installed them."""
