"""Conversations, and their rendering by a chat template: the text, its tokens, and where each turn lies.

It imports `base`.
"""
