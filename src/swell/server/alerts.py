"""The alerts of a running server: which thresholds of which budgets are due, once each, and their way to the sinks.

An alert is stored before it is sent, and the store has each threshold of a limit once. So nothing fires twice, whether
the server restarts, the clock is set back into a period that had its alerts, or a cap is raised below what fired.

A rolling budget's alerts are stored under the slot in which they fired, and what fired in any slot that counts does not
fire again: so each threshold fires once in the length of its window, however long spend stays above it.

Limits that a period's end leaves in the book are watched until they leave it: the last requests are charged late.
"""

import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from swell.clock import Clock
from swell.metering.accounts import Standing
from swell.metering.thresholds import Forecast, due, forecast_spend
from swell.ports.alert_sink import AlertSink
from swell.ports.store import Store
from swell.server.alert_book import AlertBook, new_alert_id
from swell.server.alert_deliveries import AlertDeliveries
from swell.server.alert_rows import alert_rows
from swell.server.alert_wording import StepBegun, budget_alert, step_alert
from swell.server.budget_limits import key_thresholds, thresholds_by_budget
from swell.server.budgets import KEPT_SECONDS
from swell.server.loops import Loop
from swell.server.spend_history import SpendHistory
from swell.server.spending import infrastructure_thresholds
from swell.server.writer import Writer
from swell.spec import Spec
from swell.spec.steps import BLOCK
from swell.spec.thresholds import Threshold
from swell.state.alerts import Alert, AlertRecord
from swell.state.budgets import BudgetLimit, Scope

WATCH_SECONDS = 2.0
DELIVER_SECONDS = 2.0
FORECAST_SECONDS = 60.0  # between two forecasts of one limit
MAX_FORECASTS = 4  # in one turn: each reads the ledger
MAX_NEW = 500  # alerts in one turn; the next takes the rest
FORGET_SECONDS = 86_400.0  # between two times that old alerts are forgotten
HUNDRED = Threshold(100, is_forecast=False)

_Due = tuple[Standing, Threshold | StepBegun, Forecast | None]


class AlertDesk:
    """Made once per server.

    `standings` tells what is spent, `steps` which steps of a budget hold; `say` reaches who started the server.
    """

    def __init__(
        self,
        spec: Spec,
        store: Store,
        writer: Writer,
        clock: Clock,
        sinks: Sequence[AlertSink] = (),
        *,
        standings: Callable[[], Sequence[Standing]],
        say: Callable[[str], None],
        steps: Callable[[Standing], Sequence[str]] = lambda standing: (),
        infrastructure_hours: Callable[[BudgetLimit, float], Awaitable[list[int]]] | None = None,
    ) -> None:
        """`infrastructure_hours` gives what replicas cost by the hour, as `SpendHistory.hours` what requests did."""
        self._thresholds = thresholds_by_budget(spec) | infrastructure_thresholds(spec)
        self._infrastructure_hours = infrastructure_hours
        self._store = store
        self._writer = writer
        self._clock = clock
        self._standings = standings
        self._steps = steps
        self._names: set[str] = set()  # of limits that something was spent of
        self._fired: dict[str, set[str]] = {}  # by limit, of limits that came near one
        self._quiet: dict[str, tuple[object, ...]] = {}  # by limit: what nothing was due of, so that most cost nothing
        self._forecast_at: dict[str, float] = {}  # monotonic, by limit
        self._history = SpendHistory(store, writer)
        self._forget_at = clock.monotonic()
        self._delivering = Loop("alert deliveries", self._deliver, DELIVER_SECONDS, clock)
        self.deliveries = AlertDeliveries(
            sinks,
            store,
            writer,
            clock,
            dice=random.Random(secrets.randbits(64)),  # noqa: S311 - spreads tries, guards nothing
            wake=self._delivering.wake.set,
            say=say,
        )
        self.book = AlertBook(store, writer, self.deliveries, say, spec.alerts.sinks)
        self.loops = (Loop("alerts", self.watch, WATCH_SECONDS, clock), self._delivering)

    async def begin(self) -> None:
        """Take up what an earlier server left to be delivered."""
        await self.deliveries.begin()

    async def watch(self, now: float) -> None:
        """One turn: store the alerts that are due by now, and hand them on to be delivered."""
        at_unix = self._clock.unix()
        standings = [s for s in self._standings() if s.spent_usd_nanos > 0 and self._thresholds_of(s.limit)]
        self._forget_limits(standings)
        forecasts = await self._forecasts(standings, now, at_unix)
        found = self._due(standings, forecasts)
        unknown = {name for standing, _, _ in found for name in standing.names} - self._fired.keys()
        if unknown:
            known = await self._writer.call(lambda: self._store.fired(unknown))
            self._fired |= {name: known.get(name, set()) for name in unknown}
            found = self._due(standings, forecasts)
        await self._fire(found[:MAX_NEW], at_unix)
        if now >= self._forget_at:
            await self._writer.call(lambda: self._store.forget_alerts(at_unix - KEPT_SECONDS))
            self._forget_at = now + FORGET_SECONDS

    async def rows(self, limit: int, kind: str | None = None) -> list[dict[str, Any]]:
        """The newest alerts (of a kind), newest first."""
        return alert_rows(await self._writer.call(lambda: self._store.list_alerts(limit, kind)))

    async def test(self, sink: str | None) -> list[dict[str, Any]]:
        """Send a test alert now. Raises UserError where there is no such sink, or none at all."""
        alert = Alert(
            alert_id=new_alert_id(),
            kind="test",
            severity="info",
            title="A test alert from Swell",
            text="Somebody ran: swell alerts test. Nothing happened, and nothing is to be done.",
            subject="this installation",
            at_unix=self._clock.unix(),
        )
        return await self.deliveries.test(alert, sink)

    async def finish(self) -> None:
        """The last turn of a server that ends, after everything that was spent is known."""
        await self.watch(self._clock.monotonic())
        await self.deliveries.finish()

    async def close(self) -> None:
        """Let go of the sinks."""
        await self.deliveries.close()

    async def _deliver(self, now: float) -> None:
        await self.deliveries.step(now)

    def _due(self, standings: Sequence[Standing], forecasts: dict[str, Forecast]) -> list[_Due]:
        return [
            (standing, threshold, forecasts.get(standing.limit.name))
            for standing in standings
            for threshold in self._due_of(standing, forecasts.get(standing.limit.name))
        ]

    def _due_of(self, standing: Standing, forecast: Forecast | None) -> Sequence[Threshold | StepBegun]:
        begun = self._begun(standing)
        return (
            (*self._thresholds_due(standing, forecast), *begun) if begun else self._thresholds_due(standing, forecast)
        )

    def _begun(self, standing: Standing) -> list[StepBegun]:
        """Steps that hold and were not told yet. That all is spent says the threshold of 100%, where it is the end."""
        names = self._steps(standing)
        if not names:
            return []
        fired = self._fired_of(standing)
        begun = (StepBegun(name) for name in names if name != BLOCK or standing.limit.grace_usd_nanos)
        return [step for step in begun if step.text not in fired]

    def _thresholds_due(self, standing: Standing, forecast: Forecast | None) -> Sequence[Threshold]:
        limit = standing.limit
        looked = (limit.cap_usd_nanos, standing.spent_usd_nanos, standing.is_used_up, standing.names)
        if forecast is None and self._quiet.get(limit.name) == looked:
            return ()
        thresholds, fired = self._thresholds_of(limit), self._fired_of(standing)
        found = due(thresholds, limit.cap_usd_nanos, standing.spent_usd_nanos, forecast, fired)
        if standing.is_used_up and HUNDRED in thresholds and HUNDRED.text not in fired and HUNDRED not in found:
            found = (*found, HUNDRED)
        if not found:
            self._quiet[limit.name] = looked
        return _highest(found)

    def _thresholds_of(self, limit: BudgetLimit) -> tuple[Threshold, ...]:
        return key_thresholds(limit) if limit.scope == Scope.KEY else self._thresholds.get(limit.budget_id, ())

    def _fired_of(self, standing: Standing) -> set[str]:
        """What fired in the period, or in the window; what was passed together with something higher did as well."""
        fired = set().union(*(self._fired.get(name, ()) for name in standing.names))
        spent = [each for each in self._thresholds_of(standing.limit) if not each.is_forecast]
        highest = max((each for each in spent if each.text in fired), default=None)
        return fired | {each.text for each in spent if highest is not None and each < highest}

    async def _fire(self, found: Sequence[_Due], at_unix: float) -> None:
        if not found:
            return
        await self.book.add([self._record(each, at_unix) for each in found])
        for standing, threshold, _ in found:
            self._fired.setdefault(standing.limit.name, set()).add(threshold.text)

    def _passed(self, standing: Standing, threshold: Threshold) -> tuple[str, ...]:
        """Lower thresholds that were passed together with this one, and are told with it."""
        fired, known = self._fired_of(standing), sorted(self._thresholds_of(standing.limit))
        return tuple(t.text for t in known if not t.is_forecast and t < threshold and t.text not in fired)

    def _record(self, found: _Due, at_unix: float) -> AlertRecord:
        standing, threshold, forecast = found
        if isinstance(threshold, StepBegun):
            alert = step_alert(standing, threshold, alert_id=new_alert_id(), at_unix=at_unix)
        else:
            passed = () if threshold.is_forecast else self._passed(standing, threshold)
            alert = budget_alert(standing, threshold, forecast, passed, alert_id=new_alert_id(), at_unix=at_unix)
        return self.book.record(alert, standing.limit.name, threshold.text)

    async def _forecasts(self, standings: Sequence[Standing], now: float, at_unix: float) -> dict[str, Forecast]:
        """Of the limits whose turn it is: those that are not alerted about yet, the longest since their last first."""
        waiting = [standing for standing in standings if self._wants_forecast(standing, now, at_unix)]
        waiting.sort(key=lambda standing: self._forecast_at.get(standing.limit.name, float("-inf")))
        found = {}
        for standing in waiting[:MAX_FORECASTS]:
            limit = standing.limit
            self._forecast_at[limit.name] = now
            hours = await self._hours(limit, at_unix)
            start, end = limit.start_unix_ms / 1000, (limit.end_unix_ms or 0) / 1000
            forecast = forecast_spend(hours, at_unix - start, end - start, standing.spent_usd_nanos)
            if forecast is not None:
                found[limit.name] = forecast
        return found

    async def _hours(self, limit: BudgetLimit, at_unix: float) -> list[int]:
        if limit.scope != Scope.INFRASTRUCTURE:
            return await self._history.hours(limit, at_unix)
        return [] if self._infrastructure_hours is None else await self._infrastructure_hours(limit, at_unix)

    def _wants_forecast(self, standing: Standing, now: float, at_unix: float) -> bool:
        limit = standing.limit
        if limit.end_unix_ms is None or not limit.start_unix_ms <= at_unix * 1000 < limit.end_unix_ms:
            return False
        if standing.spent_usd_nanos <= 0 or now - self._forecast_at.get(limit.name, float("-inf")) < FORECAST_SECONDS:
            return False
        fired = self._fired_of(standing)
        return any(t.is_forecast and t.text not in fired for t in self._thresholds_of(limit))

    def _forget_limits(self, standings: Sequence[Standing]) -> None:
        names = {name for standing in standings for name in standing.names}
        if names == self._names:
            return
        self._names = names
        self._quiet = {name: looked for name, looked in self._quiet.items() if name in names}
        self._fired = {name: fired for name, fired in self._fired.items() if name in names}
        self._forecast_at = {name: at for name, at in self._forecast_at.items() if name in names}
        self._history.keep({standing.limit.budget_id for standing in standings})


def _highest(found: Sequence[Threshold]) -> tuple[Threshold, ...]:
    """Without those of actual spend that were passed together with a higher one: one alert tells of them all."""
    highest = max((each for each in found if not each.is_forecast), default=None)
    return tuple(each for each in found if each.is_forecast or each == highest)
