"""A head on a detector that pairs what it has found, and says what the one does with the other."""
