"""Monitoring: what is scraped and drawn, which alerts there are, and who receives them."""
