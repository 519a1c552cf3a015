"""Features of sparse autoencoders: activations, attribution, and tests of whether they are causes. See `mi.sae`."""
