"""Conversations, and what a chat template makes of them: the rendered text, its tokens, and where each turn lies.

It imports `base`.
"""
