"""The program's exit codes."""

__all__ = ["DONE", "FOUND", "INTERRUPTED", "MENDABLE"]

DONE = 0
FOUND = 1  # an audit has found problems
MENDABLE = 2  # the user can mend it: one line on stderr says how
INTERRUPTED = 130  # by Ctrl-C or SIGTERM, after saving
