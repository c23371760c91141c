"""What Postgres's errors mean, as ours. By SQLSTATE; where there is none, no connection was made or it was lost.

Only the first line of a message is used: the detail below it may quote a row.
"""

from psycopg import Error

from swell.errors import AtCapacity, StateError, SwellError
from swell.ports.store import BUSY_TIMEOUT_SECONDS

RETRY_SECONDS = 1.0  # what AtCapacity suggests
STATEMENT_SECONDS = 600  # the longest that one statement may take
# Texts of a refused connection that waiting does not change. Postgres tells no SQLSTATE before there is a connection.
_REFUSED = (
    "authentication failed",
    "no password supplied",
    "pg_hba.conf",
    "does not exist",
    "SSL",
    "certificate",
    "invalid",
    "permission denied",
    "failed to resolve host",
)


def explain(error: BaseException | None, shown: str, *, is_connecting: bool) -> SwellError:
    """The vendor's error as AtCapacity where waiting helps, and as StateError where somebody must change something."""
    store = f"the store at {shown}"
    problem, state = _problem(error), getattr(error, "sqlstate", None) or ""
    if is_connecting and any(text in problem for text in _REFUSED):
        return StateError(f"{store} lets nobody in: {problem}; correct its URL or password, or what Postgres allows")
    if state == "55P03":
        return _busy(f"{store} was locked by another process for {BUSY_TIMEOUT_SECONDS:g} s; end what else uses it")
    if state == "53100":
        return _busy(f"the disk that holds {store} is full; free some space")
    if state.startswith(("53", "40")):
        return _busy(f"{store} is overloaded: {problem}; raise its limits, or end what else uses it")
    if state == "25006":
        return _busy(f"{store} is a standby that takes no writes; give the primary's address")
    if not state or state.startswith(("08", "57P")):
        what = "does not answer" if is_connecting else "was lost in the middle of a transaction, which changed nothing"
        return _busy(f"{store} {what} ({problem}); start it, or look at its log")
    if state == "57014":
        return StateError(f"{store} worked on one request for {STATEMENT_SECONDS} s; ask for a shorter period")
    if state == "23505":
        return StateError(f"the store already has this entry ({problem}); choose another id")
    if state == "42501":
        return StateError(f"{store} does not allow it: {problem}; let Swell's user own its database")
    return StateError(f"{store} failed: {problem}; run `swell doctor`")


def _problem(error: BaseException | None) -> str:
    primary = error.diag.message_primary if isinstance(error, Error) else None
    text = (primary or str(error)).strip() or type(error).__name__
    return text.splitlines()[0].strip()


def _busy(sentence: str) -> AtCapacity:
    return AtCapacity(sentence, retry_after_seconds=RETRY_SECONDS)
