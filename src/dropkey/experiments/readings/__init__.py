"""What experiments read off trained classifiers."""
