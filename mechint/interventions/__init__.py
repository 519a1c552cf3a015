"""Interventions on a KV cache while it is filled, and the prefill that carries them out.

It imports `vectors` and what lies below it.
"""
