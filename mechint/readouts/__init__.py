"""Readouts of a filled cache: answers, the logit lens, names, sampled replies, the loss on plain text.

It imports `engine` and what lies below it.
"""
