"""The native CPU kernel: its source, how it is built and loaded, and the backend that calls it."""
