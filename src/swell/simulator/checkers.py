"""Invariants, asserted while a replay runs. A replay that breaks one stops with what was wrong."""

from collections.abc import Iterable, Sized
from math import isclose
from typing import Protocol

from swell.simulator.fleet import Bill, SimReplica
from swell.simulator.watch import Watch


class Broken(AssertionError):  # noqa: N818 - it names what happened
    """An invariant does not hold: a fault of the simulator or of a policy, never of the trace."""


def check_moment(replicas: Iterable[SimReplica], watch: Watch, queue: Sized) -> None:
    """No request is lost between gateway and replicas, and no replica is over its bound."""
    running = 0
    for replica in replicas:
        running += replica.in_flight
        if replica.in_flight > replica.limit:
            raise Broken(f"{replica.replica_id} runs {replica.in_flight} requests, its bound is {replica.limit}")
        if replica.in_flight < 0 or replica.outstanding_tokens < 0:
            raise Broken(f"{replica.replica_id} gave back more than it took")
    if running + len(queue) != watch.in_system:
        raise Broken(f"{watch.in_system} requests are in the system, but {running} run and {len(queue)} wait")


class _Candidate(Protocol):
    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent to it."""


def check_idle(candidates: Iterable[_Candidate], queue: Sized) -> None:
    """Nobody waits while a replica that may take anybody has room."""
    if len(queue) and any(candidate.has_room for candidate in candidates):
        raise Broken(f"{len(queue)} requests wait beside a replica that has room")


def check_end(watch: Watch, requests: int, bill: Bill) -> None:
    """Every request ended or is counted as missed, and the money adds up."""
    if watch.ended + watch.in_system != requests:
        raise Broken(f"of {requests} requests {watch.ended} ended and {watch.in_system} are left")
    if watch.batch is not None and watch.batch.ended + watch.batch.in_system != watch.batch.requests:
        raise Broken(f"of {watch.batch.requests} batch requests {watch.batch.ended} ended")
    if watch.attained > watch.ended:
        raise Broken(f"{watch.attained} attained of {watch.ended}")
    if min(bill.seconds.values()) < 0 or not isclose(sum(bill.usd_by_pool.values()), bill.usd, abs_tol=1e-9):
        raise Broken("the spend by market and by pool does not add up")
