"""What drops in a model, when, and at which rate, against what its attributes say.

``watch`` sees random numbers become masks, below all libraries; ``running`` knows which module they are drawn in;
``declared`` reads the rates that modules state; ``judgement`` compares the two; ``result`` is the table.
"""
