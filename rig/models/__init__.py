"""Models on a machine: the steps of a fetch, and the revisions and hashes that pin them."""
