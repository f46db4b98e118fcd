"""Choosing the regularizer's options and what matters beside them: a search, and a check of what it found."""
