"""Alerts on their way to sinks: what `metering.notify` plans is tried in the background, and what came of it is stored.

What waits is in the store as well, so that a restarted server goes on with it. An outcome that could not be stored is
kept and stored later, and the alert is not sent again meanwhile. A server that dies between the two sends it once more,
with the same id.
"""

import asyncio
import difflib
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from swell.clock import Clock
from swell.errors import RetryLater, UserError
from swell.metering.notify import Delivery, GivenUp, Outbox, OutboxBounds
from swell.ports.alert_sink import AlertSink, SinkRefusedError
from swell.ports.store import Store
from swell.server.writer import Writer
from swell.state.alerts import Alert, AlertDelivery, AlertRecord

MAX_AT_ONCE = OutboxBounds().max_tries  # deliveries under way, per sink
TEST_SECONDS = 20.0  # a person waits
FINISH_SECONDS = 3.0  # for deliveries under way when the server ends; they are tried again when it begins

_Place = tuple[str, str]  # alert id and sink
_log = logging.getLogger(__name__)


class AlertDeliveries:
    """Called on the event loop. `wake` asks for a step soon; `say` reaches the person who started the server."""

    def __init__(
        self,
        sinks: Sequence[AlertSink],
        store: Store,
        writer: Writer,
        clock: Clock,
        *,
        dice: random.Random,
        wake: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._sinks = {sink.name: sink for sink in sinks}
        self._store = store
        self._writer = writer
        self._clock = clock
        self._outbox = Outbox(dice)
        self._wake = wake
        self._say = say
        self._waiting: dict[_Place, Delivery] = {}
        self._trying: dict[_Place, asyncio.Task[None]] = {}
        self._unsaved: dict[_Place, AlertDelivery] = {}

    @property
    def sink_names(self) -> tuple[str, ...]:
        return tuple(self._sinks)

    async def begin(self) -> None:
        """Take up what an earlier server left."""
        for alert, known in await self._writer.call(self._store.waiting_deliveries):
            delivery = Delivery(alert, known.sink, known.attempts, known.next_try_unix)
            self._waiting.setdefault((alert.alert_id, known.sink), delivery)

    def add(self, records: Sequence[AlertRecord]) -> None:
        """Deliver alerts that were stored."""
        for record in records:
            for delivery in record.deliveries:
                self._waiting[record.alert.alert_id, delivery.sink] = Delivery(record.alert, delivery.sink)
        self._wake()

    async def step(self, now: float) -> None:
        """Begin what is due, give up what is hopeless, and store what has become of both."""
        await self._save()
        if not self._waiting:
            return
        idle = [delivery for place, delivery in self._waiting.items() if place not in self._trying]
        turn = self._outbox.plan(idle, self._sinks, self._clock.unix())
        self._give_up(turn.given_up)
        under_way = Counter(sink for _, sink in self._trying)
        for delivery in turn.tries:
            if under_way[delivery.sink] < MAX_AT_ONCE:
                under_way[delivery.sink] += 1
                self._begin_try(delivery)
        await self._save()

    async def test(self, alert: Alert, only: str | None = None) -> list[dict[str, Any]]:
        """Send an alert at once, to one sink or to all, without storing it: whether each took it, and why not."""
        self.require_sinks()
        if only is not None and only not in self._sinks:
            near = difflib.get_close_matches(only, self._sinks, n=1, cutoff=0.5) or sorted(self._sinks)
            raise UserError(f"there is no alert sink {only!r}; there is {', '.join(near)}")
        names = list(self._sinks) if only is None else [only]
        problems = await asyncio.gather(*(self._problem_of(self._sinks[name], alert) for name in names))
        return [
            {"sink": name, "accepted": not problem, "problem": problem or None}
            for name, problem in zip(names, problems, strict=True)
        ]

    def require_sinks(self) -> None:
        """UserError where there is no sink at all."""
        if not self._sinks:
            raise UserError("no alert sink is configured; name one in swell.yaml under alerts.sinks")

    async def finish(self) -> None:
        """Try once what is due, and wait for it, but not long. Nothing is begun afterwards."""
        await self.step(self._clock.monotonic())
        if self._trying:
            await asyncio.wait(self._trying.values(), timeout=FINISH_SECONDS)
        await self._save()

    async def close(self) -> None:
        """End what is under way, and let go of the sinks."""
        tasks = list(self._trying.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sink in self._sinks.values():
            await sink.close()

    def _begin_try(self, delivery: Delivery) -> None:
        place = (delivery.alert.alert_id, delivery.sink)

        def ended(task: asyncio.Task[None]) -> None:
            self._trying.pop(place, None)
            if not task.cancelled():
                self._wake()

        task = asyncio.get_running_loop().create_task(self._try(delivery), name=f"alert to {delivery.sink}")
        self._trying[place] = task
        task.add_done_callback(ended)

    async def _try(self, delivery: Delivery) -> None:
        outcome: Delivery | GivenUp
        try:
            await self._sinks[delivery.sink].deliver(delivery.alert)
        except SinkRefusedError as error:
            problem, outcome = error.message, self._outbox.refused(delivery, error.message)
        except RetryLater as error:
            problem = str(error)
            outcome = self._outbox.failed(delivery, self._clock.unix(), problem, error.retry_after_seconds)
        except Exception:  # a sink's fault must not keep alerts from others
            _log.exception("an alert sink failed in a way that it must not", extra={"sink": delivery.sink})
            problem = f"alert sink {delivery.sink} failed; see: swell logs server"
            outcome = self._outbox.failed(delivery, self._clock.unix(), problem)
        else:
            done = replace(delivery, attempts=delivery.attempts + 1)
            self._waiting.pop((delivery.alert.alert_id, delivery.sink), None)
            self._note(_as_stored(done, delivered_at_unix=self._clock.unix()))
            return
        if isinstance(outcome, GivenUp):
            self._give_up([outcome], problem)
            return
        _log.warning(
            "an alert was not delivered and will be tried again",
            extra={"alert_id": delivery.alert.alert_id, "sink": delivery.sink, "reason": problem},
        )
        self._waiting[delivery.alert.alert_id, delivery.sink] = outcome
        self._note(_as_stored(outcome, problem=problem))

    def _give_up(self, given_up: Sequence[GivenUp], problem: str = "") -> None:
        told: Counter[tuple[str, str]] = Counter()
        for each in given_up:
            delivery = each.delivery
            self._waiting.pop((delivery.alert.alert_id, delivery.sink), None)
            self._note(_as_stored(delivery, given_up=each.reason, problem=problem))
            told[delivery.sink, each.reason] += 1
            _log.error(
                "an alert was given up",
                extra={"alert_id": delivery.alert.alert_id, "sink": delivery.sink, "reason": each.reason},
            )
        for (sink, reason), times in told.items():
            what = "an alert" if times == 1 else f"{times} alerts"
            self._say(f"{what} to {sink} will not be sent: {reason} (see: swell alerts)")

    def _note(self, delivery: AlertDelivery) -> None:
        self._unsaved[delivery.alert_id, delivery.sink] = delivery

    async def _save(self) -> None:
        unsaved, self._unsaved = self._unsaved, {}
        if not unsaved:
            return
        try:
            await self._writer.call(lambda: self._store.record_deliveries(list(unsaved.values())))
        except BaseException:  # cancelled as well: storing twice is harmless, and forgetting is not
            self._unsaved = unsaved | self._unsaved
            raise

    async def _problem_of(self, sink: AlertSink, alert: Alert) -> str:
        try:
            async with asyncio.timeout(TEST_SECONDS):
                await sink.deliver(alert)
        except TimeoutError:
            return f"alert sink {sink.name} did not take it within {TEST_SECONDS:g} s"
        except (SinkRefusedError, RetryLater) as error:
            return str(error)
        return ""


def _as_stored(
    delivery: Delivery, *, delivered_at_unix: float | None = None, given_up: str | None = None, problem: str = ""
) -> AlertDelivery:
    return AlertDelivery(
        alert_id=delivery.alert.alert_id,
        sink=delivery.sink,
        attempts=delivery.attempts,
        next_try_unix=delivery.next_try_unix,
        delivered_at_unix=delivered_at_unix,
        given_up=given_up,
        problem=problem,
    )
