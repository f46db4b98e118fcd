"""The papers' tables as experiments, one function each: its docstring says what is claimed and what it takes."""
