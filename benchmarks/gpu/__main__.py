"""Arguments: ``python -m benchmarks.gpu --out DIR [--only correctness,time] [--budget 480] [--dry-run]``."""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.gpu.runner import Runner, run_section
from benchmarks.gpu.sections import SECTIONS, chosen
from benchmarks.gpu.workers import serve


def main() -> int:
    """Run what the arguments ask for."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    arguments = parsed()
    if arguments.worker:
        serve(arguments.worker, arguments.dry_run)
        return 0
    if arguments.run_section:
        run_section(arguments.run_section, arguments.work, arguments.limit, arguments.dry_run)
        return 0
    if arguments.out is None:
        sys.exit("--out DIR is needed")
    sections = chosen(arguments.only)
    return Runner(arguments.out, sections, arguments.budget, arguments.dry_run, arguments.plant).run()


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the report")
    parser.add_argument("--only", help=f"sections, separated by commas, of: {', '.join(SECTIONS)}")
    parser.add_argument("--budget", type=float, help="seconds for the whole run; the sections share them")
    parser.add_argument("--dry-run", action="store_true", help="everything at tiny sizes, without a GPU")
    hidden = argparse.SUPPRESS
    parser.add_argument("--plant", action="store_true", help=hidden)  # a failing, a crashing and a hanging section
    parser.add_argument("--run-section", help=hidden)
    parser.add_argument("--worker", help=hidden)
    parser.add_argument("--work", type=Path, help=hidden)
    parser.add_argument("--limit", type=float, help=hidden)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
