"""The two TransformerLens engines behind one small interface; nothing outside this package knows which one runs."""
