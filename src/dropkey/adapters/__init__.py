"""Putting regularizers into someone else's model, and taking them out again."""
