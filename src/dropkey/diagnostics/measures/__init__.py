"""Measures of attention maps, on any device; each names its formula, source and range."""
