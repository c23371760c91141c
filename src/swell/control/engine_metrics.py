"""What engines say of themselves, read from their Prometheus text by the names that each engine has for it."""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swell.control.replica import Replica
from swell.errors import StateError
from swell.ports.engine import EngineMetrics
from swell.security.replica_tls import Identities
from swell.state.snapshot import ClientIdentity

if TYPE_CHECKING:
    import httpx  # late: it takes longer to load than all of the fleet, and a server need not wait for it

READ_TIMEOUT_SECONDS = 2.0
MAX_TEXT_BYTES = 1024 * 1024
MAX_READS = 32  # at once


@dataclass(frozen=True)
class EngineReading:
    """Gauges and counters of one replica; None where its engine does not tell."""

    running_requests: float | None = None
    waiting_requests: float | None = None
    kv_usage_ratio: float | None = None
    prompt_tokens: float | None = None
    generated_tokens: float | None = None


def parse_metrics(text: str, names: EngineMetrics) -> EngineReading:
    """The reading in an exposition. Series of one name are added up over their labels; what is no number is left."""
    wanted = {
        name: field
        for field in EngineReading.__dataclass_fields__
        if (name := getattr(names, field))
    }  # fmt: skip
    found: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        field = wanted.get(name)
        if field is None:
            continue
        try:
            value = float(line.rpartition("}")[2].split()[0 if "}" in line else 1])
        except (ValueError, IndexError):
            continue
        if value == value and abs(value) != float("inf"):
            found[field] = found.get(field, 0.0) + value
    return EngineReading(**found)


class MetricsReader:
    """Reads many replicas at once; one that does not answer, or answers nonsense, is left out."""

    def __init__(self, identities: Callable[[], Iterable[ClientIdentity]] = tuple) -> None:
        self._identities = identities
        self._contexts = Identities()
        self._made: httpx.AsyncClient | None = None
        self._secured: dict[str, tuple[ssl.SSLContext, httpx.AsyncClient]] = {}  # by identity

    async def read(self, replicas: Iterable[Replica], names: EngineMetrics) -> Mapping[str, EngineReading]:
        """By child id. Takes at most READ_TIMEOUT_SECONDS for every MAX_READS of them."""
        asked = [replica for replica in replicas if replica.address is not None]
        if not names.path or not asked:
            return {}
        self._contexts.put(self._identities())
        limit = asyncio.Semaphore(MAX_READS)
        texts = await asyncio.gather(*(self._text(replica, names.path, limit) for replica in asked))
        return {
            replica.child_id: parse_metrics(text, names)
            for replica, text in zip(asked, texts, strict=True)
            if text is not None
        }

    async def close(self) -> None:
        """Close its connections."""
        if self._made is not None:
            await self._made.aclose()
        for _, client in self._secured.values():
            await client.aclose()

    def _client(self, identity: str) -> "httpx.AsyncClient":
        """Made on first use, which most servers never come to. Raises StateError for an identity that is not there."""
        if not identity:
            self._made = self._made or _new_client()
            return self._made
        context = self._contexts.context(identity)
        known = self._secured.get(identity)
        if known is None or known[0] is not context:  # nothing is kept open in the one before
            known = self._secured[identity] = context, _new_client(context)
        return known[1]

    async def _text(self, replica: Replica, path: str, limit: asyncio.Semaphore) -> str | None:
        import httpx

        if replica.address is None:
            return None
        headers = {"authorization": f"Bearer {replica.key}"} if replica.key else {}
        named = {"sni_hostname": replica.address.server_name} if replica.address.server_name else {}
        try:
            async with (
                limit,
                asyncio.timeout(READ_TIMEOUT_SECONDS),
                self._client(replica.address.identity).stream(
                    "GET", replica.address.url(path), headers=headers, extensions=named
                ) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    return None
                text = b""
                async for piece in response.aiter_bytes():
                    text += piece
                    if len(text) > MAX_TEXT_BYTES:
                        return None
                return text.decode("utf-8", "replace")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, StateError):
            return None


def _new_client(context: ssl.SSLContext | None = None) -> "httpx.AsyncClient":
    import httpx

    return httpx.AsyncClient(
        verify=context if context is not None else True,
        timeout=READ_TIMEOUT_SECONDS,
        follow_redirects=False,
        trust_env=False,
        limits=httpx.Limits(max_connections=MAX_READS, max_keepalive_connections=0),
    )
