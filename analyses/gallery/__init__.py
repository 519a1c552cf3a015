"""The page with all figures, a browser that looks at it, and what differs between two galleries."""
