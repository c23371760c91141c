"""Swell's own usage, as `swell usage --json` prints it: one JSON array of records, newest first.

    reserved_at_unix_ms  when the request arrived; null where the ledger never learnt it
    prompt_tokens        settled: as the engine counted them; estimated: as Swell counted what it delivered
    completion_tokens    likewise
    status               settled, estimated, reserved or void

Requests that no replica saw (void) or whose outcome is unknown (reserved: their tokens are only an upper bound) are
dropped, and so are those without a time of arrival.
"""

import numpy as np

from swell.simulator.traffic.format import Rows, TraceFormat, needs, tokens
from swell.simulator.traffic.table import Chunk
from swell.state.usage import UsageStatus

_MILLISECOND_NS = 1_000_000
_KNOWN = (UsageStatus.SETTLED.value, UsageStatus.ESTIMATED.value)


def _rows(chunk: Chunk) -> Rows:
    arrived_ms = chunk.numbers("reserved_at_unix_ms", missing=0.0)
    rows = Rows(
        arrived_ms.astype(np.int64) * _MILLISECOND_NS,
        tokens(chunk, "prompt_tokens"),
        tokens(chunk, "completion_tokens"),
        is_unix=True,
    )
    return rows.only((arrived_ms > 0) & np.isin(chunk.words("status"), _KNOWN))


USAGE_LOG = TraceFormat(
    name="swell",
    title="swell usage --json",
    lacking=needs("reserved_at_unix_ms", "prompt_tokens", "completion_tokens", "status"),
    rows=_rows,
    container="json",
)
