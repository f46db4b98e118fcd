"""Second, independent statements of what the package means: plain Python and float64 NumPy, none of its code."""
