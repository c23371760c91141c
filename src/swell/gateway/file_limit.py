"""How many files and connections this process may have open."""

import resource


def raise_file_limit(wanted: int) -> None:
    """Have as many file descriptors as that, if the machine lets this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
