"""The ground floor: errors, files and their formats, checks of arguments, sizes, progress and HTML.

It imports no other floor, and knows nothing of models.
"""
