"""The lab: a throwaway Debian machine on a network of its own, with stand-ins for everything that it would download."""
