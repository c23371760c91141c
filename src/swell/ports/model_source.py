"""Where a model's files come from. One sibling per address scheme in `swell.adapters.sources`.

Contract for every implementation:

- `fetch` is synchronous, may take hours, and is called by one process at a time for one address (the cache locks it).
- `into` is a private folder that may hold what an interrupted fetch of the same address left; a source continues from
  there where it can and never trusts it: what comes back is complete, or SourceError is raised.
- Nothing outside `into` is written. A source whose files are already on this machine leaves them where they are.
- No code from the source runs: wheels are unpacked and not installed, archives only at named members.
- Everything that goes wrong is a SourceError that says what to do; the vendor's error is its `__cause__`. What was
  fetched so far may stay in `into`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Progress = Callable[[int, int | None], None]
"""Called with bytes done and bytes in all (None: unknown), perhaps from another thread."""


@dataclass(frozen=True)
class Fetched:
    """A model's files: `names` are relative to `root`, with `/` between folders.

    `entry` is the name an engine is given, empty for the folder as a whole. `in_place` files belong to the user and are
    used where they are. `sha256` holds the sums the source itself promises, by name; the cache checks them.
    """

    root: Path
    names: tuple[str, ...]
    entry: str = ""
    in_place: bool = False
    sha256: Mapping[str, str] = field(default_factory=dict)


class ModelSource(Protocol):
    """One way to get a model's files."""

    def fetch(self, address: str, into: Path, progress: Progress) -> Fetched:
        """Bring the files at `address` onto this machine."""


def no_progress(done_bytes: int, total_bytes: int | None) -> None:
    """A Progress that says nothing."""
