"""The plan: the memory that one machine's engines take, the speed its hardware allows, and the tables for both."""
