"""The program's exit codes."""

__all__ = ["DONE", "INTERRUPTED", "MENDABLE"]

DONE = 0
MENDABLE = 2  # the user can mend it: one line on stderr says how
INTERRUPTED = 130  # by Ctrl-C or SIGTERM, after saving
