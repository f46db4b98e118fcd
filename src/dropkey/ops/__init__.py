"""The arithmetic: one operation, several backends, one meaning."""
