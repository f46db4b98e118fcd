"""The first things to know of the kernels on a GPU, by one command: ``python -m benchmarks.gpu --out DIR``.

Sections run in processes of their own, most important first, and cannot stop each other. ``report.json``,
``report.txt``, ``log.txt`` and the plots are written as results come in.
"""
