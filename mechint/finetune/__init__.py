"""Training of LoRA adapters with PEFT on a model that is loaded, and the sibling that a swap needs.

Imports all floors up to `readouts`; no floor but `figures` and the roof imports it.
"""
