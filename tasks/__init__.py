"""How each concern is made so: one module a concern, called by deploy.py in its order."""
