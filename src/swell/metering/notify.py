"""Which alerts to hand to which sink now, when to try again, and when to give up.

Pure: what waits and `now` are passed in, dice are seeded, and nothing is kept from one turn to the next. The caller
stores deliveries, asks `plan` for what to try, and stores what `failed` or `refused` says; on success it drops the
delivery. It leaves those out of `waiting` that it is trying at the moment.

Waits double from `first_wait_seconds` to `max_wait_seconds`, and the latter half of each is rolled, so that what failed
together is not tried together again. A receiver that asks for more time gets it. With the defaults an alert is tried
at about 0, 4, 11, 26, 56 seconds … and then every 8 to 15 minutes, for a day.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from swell.state.alerts import Alert

_RANKS = {"critical": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert that one sink has not taken yet. `attempts` were made; the next is due at `next_try_unix`."""

    alert: Alert
    sink: str
    attempts: int = 0
    next_try_unix: float = 0.0


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A delivery that will not be tried again. `reason` is a sentence for the log and the trail."""

    delivery: Delivery
    reason: str


@dataclass(frozen=True, slots=True)
class OutboxBounds:
    """How long an alert is worth the trouble. The defaults outlast a receiver's bad night."""

    max_attempts: int = 150
    max_age_seconds: float = 24 * 3600.0  # since it happened
    max_waiting: int = 1_000  # per sink; beyond it the least severe go, of those the oldest
    max_tries: int = 8  # per sink and turn
    first_wait_seconds: float = 5.0
    max_wait_seconds: float = 900.0
    max_asked_seconds: float = 3600.0  # the most that a receiver's own wish is heeded


@dataclass(frozen=True, slots=True)
class Turn:
    """What to do now. `next_unix` is when to ask again if nothing new comes before; None: nothing waits."""

    tries: tuple[Delivery, ...]
    given_up: tuple[GivenUp, ...]
    next_unix: float | None


class Outbox:
    """Decides about deliveries."""

    def __init__(self, dice: random.Random, bounds: OutboxBounds = OutboxBounds()) -> None:
        self._dice = dice
        self._bounds = bounds

    def plan(self, waiting: Iterable[Delivery], sinks: Collection[str], now: float) -> Turn:
        """What to try at `now` (seconds since 1970), and what to give up. `sinks` are those there are.

        The most severe come first, of those the oldest. A try is due as well where it stands further ahead than any
        wait can be: then the clock was set back.
        """
        by_sink: defaultdict[str, list[Delivery]] = defaultdict(list)
        given_up: list[GivenUp] = []
        for delivery in waiting:
            reason = self._hopeless(delivery, sinks, now)
            if reason:
                given_up.append(GivenUp(delivery, reason))
            else:
                by_sink[delivery.sink].append(delivery)
        tries: list[Delivery] = []
        later: list[float] = []
        for name in sorted(by_sink):
            queue = sorted(by_sink[name], key=_by_severity)
            given_up += self._overflow(queue)
            due = [delivery for delivery in queue if self._is_due(delivery, now)]
            tries += due[: self._bounds.max_tries]
            later += [now for _ in due[self._bounds.max_tries :]]
            later += [delivery.next_try_unix for delivery in queue if not self._is_due(delivery, now)]
        return Turn(tuple(tries), tuple(given_up), min(later, default=None))

    def failed(
        self, delivery: Delivery, now: float, problem: str, retry_after_seconds: float = 0.0
    ) -> Delivery | GivenUp:
        """What becomes of a delivery that was tried at `now` and may work later; `problem` is the sink's sentence."""
        bounds = self._bounds
        attempts = delivery.attempts + 1
        if attempts >= bounds.max_attempts:
            return GivenUp(replace(delivery, attempts=attempts), f"it was tried {attempts} times; at last: {problem}")
        # The exponent is bounded, so that no number of attempts makes the power too large for a float.
        longest = min(bounds.max_wait_seconds, bounds.first_wait_seconds * 2.0 ** min(attempts - 1, 60))
        wait = longest * (0.5 + 0.5 * self._dice.random())
        wait = max(wait, min(retry_after_seconds, bounds.max_asked_seconds))
        if now + wait - delivery.alert.at_unix > bounds.max_age_seconds:
            return GivenUp(replace(delivery, attempts=attempts), f"{self._too_old()}; at last: {problem}")
        return replace(delivery, attempts=attempts, next_try_unix=now + wait)

    def refused(self, delivery: Delivery, problem: str) -> GivenUp:
        """What becomes of a delivery that the sink will not take."""
        return GivenUp(replace(delivery, attempts=delivery.attempts + 1), f"it was refused: {problem}")

    def _hopeless(self, delivery: Delivery, sinks: Collection[str], now: float) -> str:
        if delivery.sink not in sinks:
            return f"there is no sink {delivery.sink} any more"
        if delivery.attempts >= self._bounds.max_attempts:
            return f"it was tried {delivery.attempts} times"
        if now - delivery.alert.at_unix > self._bounds.max_age_seconds:
            return self._too_old()
        return ""

    def _too_old(self) -> str:
        return f"it is older than {self._bounds.max_age_seconds / 3600:g} hours"

    def _overflow(self, queue: list[Delivery]) -> list[GivenUp]:
        """Take what is too much out of a sink's queue: of the least severe, the oldest."""
        excess = len(queue) - self._bounds.max_waiting
        if excess <= 0:
            return []
        least = sorted(queue, key=lambda delivery: (-_rank(delivery), delivery.alert.at_unix))[:excess]
        dropped = set(map(id, least))
        queue[:] = [delivery for delivery in queue if id(delivery) not in dropped]
        reason = f"more than {self._bounds.max_waiting} alerts wait for this sink"
        return [GivenUp(delivery, reason) for delivery in least]

    def _is_due(self, delivery: Delivery, now: float) -> bool:
        furthest = now + max(self._bounds.max_wait_seconds, self._bounds.max_asked_seconds)
        return delivery.next_try_unix <= now or delivery.next_try_unix > furthest


def _rank(delivery: Delivery) -> int:
    return _RANKS[delivery.alert.severity]


def _by_severity(delivery: Delivery) -> tuple[int, float, str]:
    return _rank(delivery), delivery.alert.at_unix, delivery.alert.alert_id
