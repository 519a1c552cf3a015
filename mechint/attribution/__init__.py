"""Attribution of a shift: to heads and MLPs, cached positions, features of sparse autoencoders.

It imports `readouts` and what lies below it.
"""
