"""Where models and tenants are declared beside the server's file, and where it is written what became of them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from swell.spec.declared import Declared


class Declarations(Protocol):
    """What there is of them. Use it from one event loop; `close` leaves them as they are.

    `changed` is set when one appears, changes or goes, whatever is written of its status.
    """

    changed: asyncio.Event

    async def begin(self) -> Sequence[Declared]:
        """Begin to follow them; what there is. Raises AtCapacity where nobody can tell now, and may be called again."""

    def current(self) -> Sequence[Declared]:
        """What there is, as far as it is known."""

    def status_of(self, item: Declared) -> Mapping[str, Any]:
        """What is written of it; empty where it is no more, or nothing is."""

    async def write_status(self, item: Declared, status: Mapping[str, Any]) -> bool:
        """Write what became of it; False where somebody else was quicker. What is no more needs none.

        Raises AtCapacity where nothing can be written now.
        """

    async def close(self) -> None:
        """Follow them no more; twice is fine."""
