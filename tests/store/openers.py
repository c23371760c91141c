"""Two processes that open one store at the same moment."""

import subprocess
import sys


def epochs_of_two(opening: str) -> list[str]:
    """What two processes that run `opening`, which leaves a store in `s`, then get as its epoch, in order."""
    imported, _, opened = opening.rpartition("; ")
    script = f"{imported}; input(); {opened}; print(s.next_epoch()); s.close()"
    command = [sys.executable, "-c", script]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        return sorted(child.communicate(timeout=60)[0].strip() for child in children)
    finally:
        for child in children:
            child.kill()
            child.wait()
