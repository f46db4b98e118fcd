"""A body's surface from one picture."""
