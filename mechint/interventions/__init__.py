"""What may happen while a KV cache is filled, and the prefill that carries it out.

It imports `vectors` and what lies below it.
"""
