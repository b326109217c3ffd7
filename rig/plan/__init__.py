"""The plan: what the engines of one machine take and the speed its hardware allows, and how that is shown."""
