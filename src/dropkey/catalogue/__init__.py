"""One small model of every family that the adapters know: what the tests run and what the docs' table is made of.

`dropkey verify` builds models by name here. The files import the libraries they are about.
"""
