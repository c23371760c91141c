"""Invariants, asserted while a replay runs. A replay that breaks one stops with what was wrong."""

from collections.abc import Iterable, Sized
from math import isclose

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


def check_end(watch: Watch, requests: int, bill: Bill) -> None:
    """Every request ended or is counted as missed, and the money adds up."""
    if watch.ended + watch.in_system != requests:
        raise Broken(f"of {requests} requests {watch.ended} ended and {watch.in_system} are left")
    if watch.attained > watch.ended:
        raise Broken(f"{watch.attained} attained of {watch.ended}")
    if not isclose(sum(bill.usd_by_market.values()), bill.usd):
        raise Broken("the spend by market does not add up")
