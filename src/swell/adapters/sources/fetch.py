"""Fetches a model and links to it under a name that is known beforehand: what runs in a Pod before its engine.

    python3 -m swell.adapters.sources.fetch hf://org/name/file.gguf --folder=/models --link=/models/links/chat

Exit codes: 0 it is there, 2 wrong arguments, 3 it cannot be had (the last line on stderr says why).
"""

import argparse
import os
import secrets
import sys
from pathlib import Path

from swell.adapters.sources import SOURCES
from swell.adapters.sources.cache import ModelCache
from swell.errors import SourceError

EXIT_CANNOT_FETCH = 3


def main(argv: list[str]) -> int:
    """Fetch, link, return an exit code."""
    parser = argparse.ArgumentParser(prog="fetch", allow_abbrev=False)
    parser.add_argument("address")
    parser.add_argument("--folder", required=True, type=Path, help="the cache")
    parser.add_argument("--link", required=True, type=Path, help="will lead to the model's folder")
    parser.add_argument("--sha256", default=None)
    arguments = parser.parse_args(argv)
    try:
        found = ModelCache(arguments.folder, SOURCES).ensure(arguments.address, sha256=arguments.sha256)
        _link(arguments.link, found.path if found.path.is_dir() else found.path.parent)
    except (SourceError, OSError) as error:
        print(f"{arguments.address} cannot be fetched: {error}", file=sys.stderr, flush=True)
        return EXIT_CANNOT_FETCH
    print(f"{arguments.address} is in {found.path}", flush=True)
    return 0


def _link(link: Path, folder: Path) -> None:
    """Atomically, since other Pods may be reading through it, or do the same; each of them is process 1 of its own."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{secrets.token_hex(8)}")
    fresh.symlink_to(os.path.relpath(folder, link.parent))
    fresh.replace(link)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
