"""POSTs to addresses that a user configured, with everything bounded.

No redirects, no proxies, no cookies; of an answer only the status counts, and of a bad one the first bytes are read
for the error. The connection goes to an address that was judged (see `addresses`), while Host and the name in the
certificate stay those of the URL. The URL may be a secret (Slack's are), so messages name its host alone.
"""

import asyncio
import math
import ssl
from email.utils import parsedate_to_datetime

import httpx

from swell.adapters.sinks.addresses import Resolve, is_loopback_address, resolve, why_refused
from swell.adapters.sinks.wording import reply
from swell.clock import Clock
from swell.errors import RetryLater, UserError
from swell.ports.alert_sink import RETRY_SECONDS, SinkRefusedError
from swell.spec.alerts import sink_url_problem

TOTAL_SECONDS = 15.0
CONNECT_SECONDS = 5.0
MAX_ADDRESSES = 3  # of one host that are tried
MAX_ANSWER_BYTES = 1024  # read, at least; what is left of it is not
MAX_RETRY_AFTER_SECONDS = 3600.0  # a receiver that asks for more is asked again anyway

_RETRIED_STATUSES = frozenset({httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY, httpx.codes.TOO_MANY_REQUESTS})
_UNREACHED = (httpx.ConnectError, httpx.ConnectTimeout)
_FAILED = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError)  # InvalidURL: an address with a zone


class Outgoing:
    """POSTs JSON to one URL. UserError where it is not a URL to send alerts to."""

    def __init__(
        self,
        sink: str,
        url: str,
        *,
        allow_private: bool,
        clock: Clock,
        resolver: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        problem = sink_url_problem(url, allow_private=allow_private)
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL:
            problem = problem or "is not a URL such as https://alerts.example/hook"
        if problem:
            raise UserError(f"alert sink {sink}: its URL {problem}")
        self._sink = sink
        self._host = self._url.raw_host.decode("ascii")
        self._allow_private = allow_private
        self._clock = clock
        self._resolve = resolver
        self._total_seconds = total_seconds
        self._client = httpx.AsyncClient(
            verify=tls or True,
            timeout=httpx.Timeout(total_seconds, connect=CONNECT_SECONDS),
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def post(self, body: bytes, headers: dict[str, str]) -> None:
        """Send `body`. Raises RetryLater or SinkRefusedError unless the answer is a success."""
        try:
            async with asyncio.timeout(self._total_seconds):
                await self._post(body, headers)
        except TimeoutError as error:
            raise self._later(f"did not answer within {self._total_seconds:g} s") from error
        except _FAILED as error:
            raise self._later(f"could not be reached: {type(error).__name__}{reply(str(error))}") from error

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def _post(self, body: bytes, headers: dict[str, str]) -> None:
        addresses = await self._addresses()
        for address in addresses[:-1]:
            try:
                return await self._post_to(address, body, headers)
            except _UNREACHED:
                continue  # the next address of the same host
        return await self._post_to(addresses[-1], body, headers)

    async def _addresses(self) -> list[str]:
        default_port = 443 if self._url.scheme == "https" else 80
        addresses = await self._resolve(self._host, self._url.port or default_port)
        for address in addresses:
            problem = why_refused(address, allow_private=self._allow_private)
            if not problem and self._url.scheme == "http" and not is_loopback_address(address):
                problem = "is another machine, and http would show it to all between; use https"
            if problem:
                raise SinkRefusedError(f"alert sink {self._sink}: {self._host} is {address}, which {problem}")
        if not addresses:
            raise self._later("has no address")
        return addresses[:MAX_ADDRESSES]

    async def _post_to(self, address: str, body: bytes, headers: dict[str, str]) -> None:
        request = self._client.build_request(
            "POST",
            self._url.copy_with(host=address),
            content=body,
            headers={
                **headers,
                "host": self._url.netloc.decode("ascii"),
                "content-type": "application/json",
                "user-agent": "swell-alerts",
                "accept-encoding": "identity",  # nothing to unpack, so nothing that grows
            },
            extensions={"sni_hostname": self._host},
        )
        response = await self._client.send(request, stream=True)
        try:
            if not response.is_success:
                self._raise_for(response, await _beginning(response))
        finally:
            await response.aclose()

    def _raise_for(self, response: httpx.Response, said: bytes) -> None:
        status = response.status_code
        answer = f"answered {status}{reply(said)}"
        if 300 <= status < 400:
            raise self._refusal(f"{answer}: a redirect, and those are not followed; give the URL that it leads to")
        if 400 <= status < 500 and status not in _RETRIED_STATUSES:
            raise self._refusal(f"{answer}; check the URL and what it expects")
        seconds = _retry_after(response.headers.get("retry-after", ""), self._clock.unix())
        raise self._later(answer, seconds)

    def _refusal(self, what: str) -> SinkRefusedError:
        return SinkRefusedError(f"alert sink {self._sink}: {self._host} {what}")

    def _later(self, what: str, seconds: float = RETRY_SECONDS) -> RetryLater:
        return RetryLater(f"alert sink {self._sink}: {self._host} {what}", retry_after_seconds=seconds)


async def _beginning(response: httpx.Response) -> bytes:
    """The first bytes of the body; the rest stays unread."""
    body = b""
    async for piece in response.aiter_raw():
        body += piece
        if len(body) >= MAX_ANSWER_BYTES:
            break
    return body[:MAX_ANSWER_BYTES]


def _retry_after(value: str, now_unix: float) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; the usual ones where it says neither."""
    try:
        seconds = float(value) if value.strip().isdigit() else parsedate_to_datetime(value).timestamp() - now_unix
    except (ValueError, OverflowError):
        return RETRY_SECONDS
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else RETRY_SECONDS
