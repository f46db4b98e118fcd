"""Random calls of the operation and of registered modules, judged by the float64 oracle.

``PYTHONPATH=tests python -m fuzz 10000`` runs so many over all backends that work here and prints what it saw.
"""
