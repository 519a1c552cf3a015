"""Features of sparse autoencoders: what they read, what they carry, and whether they are causes. See `mi.sae`."""
