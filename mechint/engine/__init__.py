"""The prefix-tree engine: plans every (conversation, intervention) cell, and computes each distinct prefix once.

It imports `interventions` and what lies below it.
"""
