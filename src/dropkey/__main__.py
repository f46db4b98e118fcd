"""``python -m dropkey``."""

import sys

from dropkey.cli import main

if __name__ == "__main__":
    sys.exit(main())
