"""The admin API: HTTP over a Unix socket that only its owner may open.

Who calls is asked of the kernel (SO_PEERCRED), not of the request. Errors are `{"error": sentence}`:
400 where the user must change something, 503 where waiting helps, 500 otherwise.
"""

import asyncio
import contextlib
import logging
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from swell.errors import AtCapacity, RetryLater, SwellError, UserError
from swell.server.administration import DEFAULT_GRACE_SECONDS, Administration, NewKey, key_facts
from swell.server.ledger_desk import LedgerDesk
from swell.server.overrides import NewOverride, OverrideEnd, Overrides
from swell.server.private_socket import private_socket, remove_socket
from swell.server.review_report import ReviewReport
from swell.server.spec_change import SpecDesk
from swell.state.alerts import AlertKind
from swell.state.posted_rates import PostedRate
from swell.state.records import DecisionRecord, UsageFilter
from swell.state.replica_runs import ReplicaRun
from swell.state.usage_groups import Bucket, GroupColumn

BODY_BYTES = 64 * 1024
CONCURRENT_REQUESTS = 64

_log = logging.getLogger(__name__)
_Decoded = TypeVar("_Decoded")
_PEER = struct.Struct("3i")  # pid, uid, gid


class Platform(Protocol):
    """What the admin API needs of the running server."""

    async def act(self, function: Callable[[Administration], Any], *, keys_changed: bool = False) -> Any:
        """Run an administrative act on the writer thread; when it changes keys, return after they were published."""

    @property
    def ledger(self) -> LedgerDesk:
        """The ledger up to now."""

    async def decisions(self, model: str | None, limit: int) -> list[DecisionRecord]:
        """The trail of scaling decisions up to now, newest first."""

    async def budgets(self) -> list[dict[str, Any]]:
        """What has become of every budget by now."""

    async def overrides(self, act: Callable[[Overrides], Any]) -> Any:
        """Run an act on raises of budgets on the writer thread; return after the workers were told of it."""

    async def runs(self, since_unix_ms: int | None, until_unix_ms: int | None) -> Sequence[ReplicaRun]:
        """Lives of replicas, up to now."""

    async def rates(self, model: str | None, limit: int) -> list[PostedRate]:
        """Rates that were posted, newest first."""

    async def alerts(self, limit: int, kind: str | None = None) -> list[dict[str, Any]]:
        """The newest alerts, newest first, and what became of each at every sink."""

    async def test_alerts(self, sink: str | None, principal: str) -> list[dict[str, Any]]:
        """Send a test alert to one sink or all, now: whether each took it, and why not."""

    def review_sinks(self) -> list[str]:
        """Where reviews are sent. UserError where there is no sink at all."""

    async def send_review(self, report: ReviewReport, principal: str) -> list[str]:
        """Tell the sinks of a review that somebody made: which of them."""

    spec_desk: SpecDesk | None  # what changes the spec

    def status(self) -> dict[str, Any]:
        """Models, replicas and workers."""

    def request_stop(self, principal: str) -> None:
        """Begin to drain and stop."""


class TrailQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a query for decisions."""

    model: str | None = None
    limit: int = 100


class AlertsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a query for alerts."""

    limit: Annotated[int, msgspec.Meta(ge=1)] = 100
    kind: AlertKind | None = None  # None: all


class OverridesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a query for raises of budgets."""

    limit: Annotated[int, msgspec.Meta(ge=1)] = 100


class RunsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a query for lives of replicas; None is without a bound."""

    since_unix_ms: int | None = None
    until_unix_ms: int | None = None


class RatesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a query for posted rates."""

    model: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = 100


class SpecFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a change of the spec: the file's absolute path."""

    file: str


class AlertsTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a test of sinks; None: all."""

    sink: str | None = None


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a rotation."""

    grace_seconds: float = DEFAULT_GRACE_SECONDS


class UsageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a usage query."""

    where: UsageFilter = UsageFilter()
    limit: int = 100


class GroupQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a query for sums."""

    where: UsageFilter = UsageFilter()
    by: tuple[GroupColumn, ...] = ()
    bucket: Bucket | None = None


def application(platform: Platform) -> Starlette:
    """The routes under /api."""

    async def status(request: Request) -> Response:
        return _json(platform.status())

    async def stop(request: Request) -> Response:
        platform.request_stop(principal_of(request))
        return _json({"stopping": True}, 202)

    async def list_keys(request: Request) -> Response:
        return _json(await platform.act(lambda office: office.list_keys()))

    async def create_key(request: Request) -> Response:
        wanted, principal = await _body(request, NewKey), principal_of(request)
        return _json(await platform.act(lambda office: office.create_key(wanted, principal), keys_changed=True), 201)

    async def rotate_key(request: Request) -> Response:
        grace = (await _body(request, Rotation)).grace_seconds
        key_id, principal = request.path_params["key_id"], principal_of(request)
        return _json(await platform.act(lambda office: office.rotate_key(key_id, grace, principal), keys_changed=True))

    async def revoke_key(request: Request) -> Response:
        key_id, principal = request.path_params["key_id"], principal_of(request)
        return _json(
            await platform.act(
                lambda office: key_facts(office.revoke_key(key_id, principal), office.clock.unix()), keys_changed=True
            )
        )

    async def decisions(request: Request) -> Response:
        query = await _body(request, TrailQuery)
        return _json(await platform.decisions(query.model, query.limit))

    return Starlette(
        routes=[
            Route("/api/status", _told(status)),
            Route("/api/stop", _told(stop), methods=["POST"]),
            Route("/api/keys", _told(list_keys)),
            Route("/api/keys", _told(create_key), methods=["POST"]),
            Route("/api/keys/{key_id}/rotate", _told(rotate_key), methods=["POST"]),
            Route("/api/keys/{key_id}/revoke", _told(revoke_key), methods=["POST"]),
            *_usage_routes(platform),
            *_budget_routes(platform),
            *_cost_routes(platform),
            *_alert_routes(platform),
            *_spec_routes(platform),
            Route("/api/decisions", _told(decisions), methods=["POST"]),
        ]
    )


def waiting_application(status: Callable[[], dict[str, Any]], stop: Callable[[], None]) -> Starlette:
    """What a server answers that waits for another one: what it does, and an end to that. For all else the one that
    leads must be asked."""

    async def waits(request: Request) -> Response:
        return _json(status())

    async def end(request: Request) -> Response:
        stop()
        return _json({"stopping": True}, 202)

    async def refuse(request: Request) -> Response:
        raise UserError(f"this server waits: {status()['leader']} leads; ask that one, on its machine")

    rest = Route("/{rest:path}", _told(refuse), methods=["GET", "POST"])
    return Starlette(
        routes=[Route("/api/status", _told(waits)), Route("/api/stop", _told(end), methods=["POST"]), rest]
    )


def _usage_routes(platform: Platform) -> list[Route]:
    async def usage(request: Request) -> Response:
        query = await _body(request, UsageQuery)
        listed = platform.ledger.read(lambda reads: reads.list_usage(query.where, query.limit))
        return _json(await _while_heard(request, listed))

    async def usage_groups(request: Request) -> Response:
        query = await _body(request, GroupQuery)
        return _json(await _while_heard(request, platform.ledger.groups(query.where, query.by, query.bucket)))

    async def usage_span(request: Request) -> Response:
        return _json(await _while_heard(request, platform.ledger.read(lambda reads: reads.usage_span())))

    return [
        Route("/api/usage", _told(usage), methods=["POST"]),
        Route("/api/usage/groups", _told(usage_groups), methods=["POST"]),
        Route("/api/usage/span", _told(usage_span)),
    ]


def _budget_routes(platform: Platform) -> list[Route]:
    async def budgets(request: Request) -> Response:
        return _json(await platform.budgets())

    async def raise_budget(request: Request) -> Response:
        wanted, principal = await _body(request, NewOverride), principal_of(request)
        return _json(await platform.overrides(lambda office: office.raise_budget(wanted, principal)), 201)

    async def overrides(request: Request) -> Response:
        limit = (await _body(request, OverridesQuery)).limit
        return _json(await platform.overrides(lambda office: office.rows(limit)))

    async def end_override(request: Request) -> Response:
        override_id, principal = (await _body(request, OverrideEnd)).override_id, principal_of(request)
        return _json(await platform.overrides(lambda office: office.end(override_id, principal)))

    return [
        Route("/api/budgets", _told(budgets)),
        Route("/api/budgets/raise", _told(raise_budget), methods=["POST"]),
        Route("/api/budgets/overrides", _told(overrides), methods=["POST"]),
        Route("/api/budgets/end-override", _told(end_override), methods=["POST"]),
    ]


def _alert_routes(platform: Platform) -> list[Route]:
    async def alerts(request: Request) -> Response:
        wanted = await _body(request, AlertsQuery)
        return _json(await platform.alerts(wanted.limit, wanted.kind))

    async def test_alerts(request: Request) -> Response:
        wanted = await _body(request, AlertsTest)
        return _json(await platform.test_alerts(wanted.sink, principal_of(request)))

    async def review_sinks(request: Request) -> Response:
        return _json({"sinks": platform.review_sinks()})

    async def send_review(request: Request) -> Response:
        report = await _body(request, ReviewReport)
        return _json({"sinks": await platform.send_review(report, principal_of(request))}, 201)

    return [
        Route("/api/alerts", _told(alerts), methods=["POST"]),
        Route("/api/alerts/test", _told(test_alerts), methods=["POST"]),
        Route("/api/reviews/sinks", _told(review_sinks)),
        Route("/api/reviews/send", _told(send_review), methods=["POST"]),
    ]


def _cost_routes(platform: Platform) -> list[Route]:
    async def runs(request: Request) -> Response:
        query = await _body(request, RunsQuery)
        return _json(await platform.runs(query.since_unix_ms, query.until_unix_ms))

    async def rates(request: Request) -> Response:
        query = await _body(request, RatesQuery)
        return _json(await platform.rates(query.model, query.limit))

    return [
        Route("/api/runs", _told(runs), methods=["POST"]),
        Route("/api/rates", _told(rates), methods=["POST"]),
    ]


def _spec_routes(platform: Platform) -> list[Route]:
    def desk() -> SpecDesk:
        if platform.spec_desk is None:
            raise UserError("this server cannot change its spec")
        return platform.spec_desk

    async def differences(request: Request) -> Response:
        wanted = await _body(request, SpecFile)
        return _json({"differences": await desk().differences(Path(wanted.file))})

    async def apply(request: Request) -> Response:
        wanted = await _body(request, SpecFile)
        return _json({"digest": await desk().apply(Path(wanted.file))}, 202)

    return [
        Route("/api/spec/differences", _told(differences), methods=["POST"]),
        Route("/api/spec", _told(apply), methods=["POST"]),
    ]


def principal_of(request: Request) -> str:
    """The user at the other end of the socket, as `name(uid)`."""
    return request.client.host if request.client else "unknown"


def _told(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Errors as answers."""

    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except UserError as error:
            return _json({"error": error.message}, 400)
        except RetryLater as error:
            return _json({"error": str(error), "retry_after_seconds": error.retry_after_seconds}, 503)
        except SwellError as error:
            return _json({"error": str(error)}, 500)
        except Exception:
            _log.exception("an admin request failed", extra={"path": request.url.path})
            return _json({"error": "the server failed to do this; its log says why (swell logs server)"}, 500)

    return answered


async def _body(request: Request, shape: type[_Decoded]) -> _Decoded:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise UserError(f"an admin request may have at most {BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except msgspec.MsgspecError as error:
        raise UserError(f"the request is not understood: {error}") from error


async def _end_of(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _while_heard(request: Request, answer: Coroutine[Any, Any, _Decoded]) -> _Decoded:
    """The answer; when the client is gone, what makes it is cancelled. The request has no body, or it was read."""
    making, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_end_of(request))
    try:
        await asyncio.wait({making, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not making.done():
            raise AtCapacity("whoever asked is gone", retry_after_seconds=0.0)
        return making.result()
    finally:
        for task in (making, gone):
            task.cancel()
        await asyncio.gather(making, gone, return_exceptions=True)


def _json(document: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


class _PeerProtocol(HttpToolsProtocol):
    """Reports the user at the other end of the socket as the client's host."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        pid, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = "user"
        self.client = (f"{name}({uid})", pid)


class AdminServer(uvicorn.Server):
    """Serves an application on a Unix socket inside the server's own event loop."""

    def __init__(self, served: Starlette, path: Path) -> None:
        super().__init__(
            uvicorn.Config(
                served,
                http=_PeerProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=CONCURRENT_REQUESTS,
                timeout_graceful_shutdown=2,
            )
        )
        self._path = path

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the server."""
        yield

    async def run_on_socket(self) -> None:
        """Serve until `should_exit`; replaces a socket that a dead server left."""
        listener = private_socket(self._path)
        try:
            await self.serve(sockets=[listener])
        finally:
            listener.close()
            remove_socket(self._path)
