"""Opening a model and checking it: names, files, weights, tokenizer, adapters, backends, readout, KV cache, memory.

It imports `base` and `chat`. Only this floor knows TransformerLens.
"""
