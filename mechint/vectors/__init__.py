"""Concept vectors: what they are, their files, and how they are extracted from activations.

It imports `models` and what lies below it.
"""
