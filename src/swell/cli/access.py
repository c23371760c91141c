"""How a command reaches keys and usage: through the running server, or the store itself where none runs."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from swell.cli.output import UnreachableError
from swell.errors import StateError, SwellError, UserError
from swell.metering.questions import LedgerQuestions
from swell.ports.store import UsageStore
from swell.server.administration import Administration, NewKey, current_principal, key_facts
from swell.server.state_directory import StateDirectory
from swell.state.posted_rates import PostedRate
from swell.state.records import UsageFilter
from swell.state.replica_runs import ReplicaRun
from swell.state.usage_groups import Bucket, GroupColumn, UsageGroup

if TYPE_CHECKING:
    from swell.server.overrides import NewOverride, Overrides
    from swell.server.review_report import ReviewReport

DEFAULT_FILE = Path("swell.yaml")
REQUEST_SECONDS = 30.0
REPORT_SECONDS = 900.0  # for one question to the ledger: Postgres works on one for ten minutes at most
# A server that has just locked the directory needs a moment until its socket answers.
_ATTEMPTS = 100
_ATTEMPT_SECONDS = 0.05


class Access(Protocol):
    """What commands ask for; answers are plain JSON values."""

    def create_key(self, request: NewKey) -> Any: ...

    def list_keys(self) -> Any: ...

    def rotate_key(self, key_id: str, grace_seconds: float) -> Any: ...

    def revoke_key(self, key_id: str) -> Any: ...

    def usage(self, where: UsageFilter, limit: int) -> Any: ...

    def budgets(self, file: Path) -> Any: ...

    def raise_budget(self, request: "NewOverride", file: Path) -> Any: ...

    def overrides(self, limit: int, file: Path = DEFAULT_FILE) -> Any: ...

    def end_override(self, override_id: str) -> Any: ...

    def alerts(self, limit: int, kind: str | None = None) -> Any: ...

    def runs(self, since_unix_ms: int | None, until_unix_ms: int | None) -> list[ReplicaRun]:
        """Lives of replicas in some time."""

    def rates(self, model: str | None, limit: int) -> list[PostedRate]:
        """Posted rates, newest first."""

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        """Sums, as values: what adds them up further counts on their types."""

    def usage_span(self) -> tuple[int, int] | None:
        """When the first and the last request arrived, Unix milliseconds."""


class ServerAccess:
    """Asks the running server over its admin socket."""

    def __init__(self, state: StateDirectory) -> None:
        import httpx

        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(state.admin_socket)),
            base_url="http://swell",
            timeout=REQUEST_SECONDS,
            trust_env=False,
        )
        self._state = state

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def status(self) -> Any:
        """Models, replicas and workers as the server sees them."""
        return self._ask("GET", "/api/status")

    def decisions(self, model: str | None, limit: int) -> Any:
        """The trail of scaling decisions, newest first."""
        return self._ask("POST", "/api/decisions", {"model": model, "limit": limit})

    def stop(self) -> None:
        """Tell the server to drain and stop; it answers before it does."""
        self._ask("POST", "/api/stop")

    def spec_differences(self, file: Path) -> Any:
        """What applying a file would change."""
        return self._ask("POST", "/api/spec/differences", {"file": str(file)})["differences"]

    def apply_spec(self, file: Path) -> str:
        """Begin to change to a file; the digest of what will then be served."""
        return str(self._ask("POST", "/api/spec", {"file": str(file)})["digest"])

    def create_key(self, request: NewKey) -> Any:
        return self._ask("POST", "/api/keys", request)

    def list_keys(self) -> Any:
        return self._ask("GET", "/api/keys")

    def rotate_key(self, key_id: str, grace_seconds: float) -> Any:
        return self._ask("POST", f"/api/keys/{_segment(key_id)}/rotate", {"grace_seconds": grace_seconds})

    def revoke_key(self, key_id: str) -> Any:
        return self._ask("POST", f"/api/keys/{_segment(key_id)}/revoke")

    def usage(self, where: UsageFilter, limit: int) -> Any:
        return self._ask("POST", "/api/usage", {"where": where, "limit": limit})

    def budgets(self, file: Path) -> Any:
        return self._ask("GET", "/api/budgets")

    def raise_budget(self, request: "NewOverride", file: Path) -> Any:
        return self._ask("POST", "/api/budgets/raise", request)

    def overrides(self, limit: int, file: Path = DEFAULT_FILE) -> Any:
        return self._ask("POST", "/api/budgets/overrides", {"limit": limit})

    def end_override(self, override_id: str) -> Any:
        return self._ask("POST", "/api/budgets/end-override", {"override_id": override_id})

    def alerts(self, limit: int, kind: str | None = None) -> Any:
        return self._ask("POST", "/api/alerts", {"limit": limit, "kind": kind})

    def runs(self, since_unix_ms: int | None, until_unix_ms: int | None) -> list[ReplicaRun]:
        query = {"since_unix_ms": since_unix_ms, "until_unix_ms": until_unix_ms}
        return msgspec.convert(self._ask("POST", "/api/runs", query), list[ReplicaRun])

    def rates(self, model: str | None, limit: int) -> list[PostedRate]:
        return msgspec.convert(self._ask("POST", "/api/rates", {"model": model, "limit": limit}), list[PostedRate])

    def review_sinks(self) -> list[str]:
        """Where reviews are sent. Raises UserError where there is no sink at all."""
        return msgspec.convert(self._ask("GET", "/api/reviews/sinks")["sinks"], list[str])

    def send_review(self, report: "ReviewReport") -> list[str]:
        """Have the sinks told of a review: which of them are."""
        return msgspec.convert(self._ask("POST", "/api/reviews/send", report)["sinks"], list[str])

    def test_alerts(self, sink: str | None) -> Any:
        """Have a test alert sent now; what came of it, per sink."""
        return self._ask("POST", "/api/alerts/test", {"sink": sink})

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        query = {"where": where, "by": by, "bucket": bucket}
        answer = self._ask("POST", "/api/usage/groups", query, seconds=REPORT_SECONDS)
        return msgspec.convert(answer, list[UsageGroup])

    def usage_span(self) -> tuple[int, int] | None:
        return msgspec.convert(self._ask("GET", "/api/usage/span"), tuple[int, int] | None)

    def _ask(self, method: str, path: str, body: object = None, *, seconds: float = REQUEST_SECONDS) -> Any:
        import httpx

        try:
            content = None if body is None else msgspec.json.encode(body)
            times = httpx.Timeout(REQUEST_SECONDS, read=seconds)
            response = self._client.request(method, path, content=content, timeout=times)
        except httpx.ReadTimeout as error:
            raise UnreachableError(
                f"the server has not answered for {seconds:g} s: it is busy or stuck; see swell logs server, or ask "
                "for a shorter period"
            ) from error
        except httpx.TransportError as error:
            raise UnreachableError(
                f"no server answers on {self._state.admin_socket}; start one with: swell up --state {self._state.root}"
            ) from error
        document = response.json()
        if response.status_code == httpx.codes.BAD_REQUEST:
            raise UserError(document["error"])
        if response.is_error:
            raise SwellError(document.get("error", f"the server answered {response.status_code}"))
        return document


class StoreAccess:
    """Works on the store directly; the caller holds the state lock."""

    def __init__(self, office: Administration, state: StateDirectory) -> None:
        self._office = office
        self._state = state
        self._is_entered = False
        self._questions = LedgerQuestions(office.store)

    def close(self) -> None:
        """Let go of what reads the store."""
        self._questions.close()

    def create_key(self, request: NewKey) -> Any:
        return _plain(self._office.create_key(request, current_principal()))

    def list_keys(self) -> Any:
        return self._office.list_keys()

    def rotate_key(self, key_id: str, grace_seconds: float) -> Any:
        return _plain(self._office.rotate_key(key_id, grace_seconds, current_principal()))

    def revoke_key(self, key_id: str) -> Any:
        return key_facts(self._office.revoke_key(key_id, current_principal()), self._office.clock.unix())

    def usage(self, where: UsageFilter, limit: int) -> Any:
        return _plain(self._ledger().list_usage(where, limit))

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        self._ledger()
        return self._questions.group_usage(where, by, bucket)

    def usage_span(self) -> tuple[int, int] | None:
        return self._ledger().usage_span()

    def _ledger(self) -> UsageStore:
        """The ledger with what gateway workers wrote, entered once, so that all answers are of the same moment."""
        from swell.server.leftovers import enter_spools

        if not self._is_entered:
            enter_spools(self._state, self._office.store)
            self._is_entered = True
        return self._office.store

    def budgets(self, file: Path) -> Any:
        """Of the file, since no server knows them: what the ledger holds of each period."""
        from swell.server.budget_rows import ledger_rows
        from swell.server.leftovers import enter_spools
        from swell.server.spending import stored_rows
        from swell.spec import load_spec

        enter_spools(self._state, self._office.store)
        spec, store, now = load_spec(file), self._office.store, self._office.clock.unix()
        return [*ledger_rows(spec, store, now), *stored_rows(spec, store.list_runs, now)]

    def raise_budget(self, request: "NewOverride", file: Path) -> Any:
        return _plain(self._overrides(file).raise_budget(request, current_principal()))

    def overrides(self, limit: int, file: Path = DEFAULT_FILE) -> Any:
        return _plain(self._overrides(file).rows(limit, knows_budgets=file.exists()))

    def end_override(self, override_id: str) -> Any:
        return _plain(self._overrides(Path()).end(override_id, current_principal()))

    def _overrides(self, file: Path) -> "Overrides":
        from swell.server.overrides import Overrides
        from swell.spec import load_spec

        return Overrides(lambda: load_spec(file), self._office.store, self._office.clock)

    def alerts(self, limit: int, kind: str | None = None) -> Any:
        from swell.server.alert_rows import alert_rows

        return alert_rows(self._office.store.list_alerts(limit, kind))

    def runs(self, since_unix_ms: int | None, until_unix_ms: int | None) -> list[ReplicaRun]:
        return self._office.store.list_runs(since_unix_ms, until_unix_ms)

    def rates(self, model: str | None, limit: int) -> list[PostedRate]:
        return self._office.store.list_rates(model, limit)


@contextmanager
def server(path: Path) -> Iterator[ServerAccess]:
    """The running server. Raises UnreachableError where there is none."""
    access = ServerAccess(StateDirectory(path.absolute()))
    try:
        yield access
    finally:
        access.close()


@contextmanager
def server_or_store(path: Path) -> Iterator[Access]:
    """The running server, or the store under the state lock; waits for a server that is still starting."""
    state = StateDirectory(path.absolute())
    for _ in range(_ATTEMPTS):
        if state.is_locked():
            if state.admin_socket.exists() and answers(state):
                with server(path) as access:
                    yield access
                return
            time.sleep(_ATTEMPT_SECONDS)
            continue
        try:
            with _store(state) as alone:
                yield alone
            return
        except _TakenError:
            continue
    raise UnreachableError(
        f"process {state.holder() or 'unknown'} holds the state directory {state.root} but its admin socket does not "
        "answer; look at: swell logs server"
    )


class _TakenError(Exception):
    """Somebody else got the lock first."""


@contextmanager
def _store(state: StateDirectory) -> Iterator[StoreAccess]:
    from swell.server import assembly

    state.create()
    lock = state.locked()
    try:
        lock.__enter__()
    except StateError as error:
        raise _TakenError from error
    try:
        with assembly.administration(state) as office, closing(StoreAccess(office, state)) as access:
            yield access
    finally:
        lock.__exit__(None, None, None)


def answers(state: StateDirectory) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(REQUEST_SECONDS)
        try:
            probe.connect(str(state.admin_socket))
        except OSError:
            return False
    return True


def _segment(key_id: str) -> str:
    if not (key_id.isascii() and key_id.isalnum()):
        raise UserError(f"{key_id!r} is no key id; `swell keys list` shows the ids")
    return key_id


def _plain(value: object) -> Any:
    return msgspec.to_builtins(value)
