"""One module for each concern, which sets it up; deploy.py calls them in order."""
