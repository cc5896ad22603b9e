"""Fronts side by side: what may be compared, what the figures say, and how it is shown."""
