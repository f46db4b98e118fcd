"""Which files of the package have a thing in hand while something runs."""

import sys
from pathlib import Path

import dropkey

PACKAGE = f"{Path(dropkey.__file__).parent}/"


def holders(run, is_it):
    """Return the files of the package, in order, in which a local variable of a running function is the thing.

    A variable counts that is the thing or a view of it, or a plain tuple or list with it inside; an object that carries
    it does not, as long as nobody takes it out.
    """
    files = []

    def walk(frame, event, argument):
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGE):  # text, since this is asked at every call of every library
            return
        name = path.removeprefix(PACKAGE)
        if name in files:
            return
        variables = list(frame.f_locals.values())
        for several in [v for v in variables if type(v) in (tuple, list)]:
            variables += several
        if any(is_it(v) for v in variables):
            files.append(name)

    sys.setprofile(walk)
    try:
        run()
    finally:
        sys.setprofile(None)
    return files
