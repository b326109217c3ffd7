"""Models on a machine: what a fetch has to do, and the revisions and hashes that pin them."""
