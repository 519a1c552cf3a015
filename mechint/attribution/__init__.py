"""What carries the signal: heads and MLPs, cached positions, features of sparse autoencoders.

It imports `readouts` and what lies below it.
"""
