"""Concept vectors, their files, and their extraction from activations.

It imports `models` and what lies below it.
"""
