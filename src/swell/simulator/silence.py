"""Keeps a solver's chatter off standard output, where `--json` promises one document and nothing else.

HiGHS 1.12 writes lines of its own to file descriptor 1 whatever it is asked (its issue 2783), past `sys.stdout`. So the
descriptor itself leads nowhere for as long as something is solved. That holds for the whole process: nobody else may
have anything to say meanwhile, which is why commands do this and the server's loops do not.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT = 1


@contextmanager
def solver_is_silent() -> Iterator[None]:
    """Within, what is written to file descriptor 1 is lost. What was written before is not, nor is standard error."""
    sys.stdout.flush()
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # it is closed: there is nothing to keep clean
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDOUT)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C still holds back is chatter, too
        os.dup2(kept, _STDOUT)
        os.close(nowhere)
        os.close(kept)
