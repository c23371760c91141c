"""Lives of replicas as they are paid for."""

from typing import Literal

import msgspec

RunMarket = Literal["on_demand", "spot", "own"]
"""How a replica's machine was bought; `own` is one that nobody is billed for by the hour."""


class ReplicaRun(msgspec.Struct, frozen=True, kw_only=True):
    """One replica from its start to its end. Times are Unix milliseconds, the price nano-dollars an hour.

    The price is the one at the start. A run without an end is known to have gone on until `seen_unix_ms`.
    """

    replica_id: str
    model: str
    provider: str
    market: RunMarket
    accelerator: str  # such as `L4` or `4xH100`; empty where nobody said
    usd_nanos_per_hour: int
    started_unix_ms: int
    ready_unix_ms: int | None = None
    ended_unix_ms: int | None = None
    seen_unix_ms: int

    @property
    def until_unix_ms(self) -> int:
        """Its end, as far as is known."""
        return self.seen_unix_ms if self.ended_unix_ms is None else self.ended_unix_ms
