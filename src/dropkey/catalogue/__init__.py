"""One small model of every family that the adapters know: what the tests run and what the docs' table is made of.

Nothing else imports this folder; its files import the libraries they are about.
"""
