"""The running server: everything assembled, its loops, and how it ends.

Ending: the gateway workers are told first, so that they stop accepting and finish what they serve; then
the replicas are drained and stopped; then what the workers wrote last enters the ledger.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from swell import __version__
from swell.control.fleet import Fleet, FleetTimes
from swell.control.probe import HttpAsk
from swell.errors import SwellError
from swell.metering.ingest import SpoolReader
from swell.metering.leases import EXPECT_SECONDS, LeaseBook
from swell.server.administration import Administration, current_principal
from swell.server.background import Background
from swell.server.budgets import TURN_SECONDS
from swell.server.channel import ControlChannel
from swell.server.decision_desk import DecisionDesk
from swell.server.desired_counts import DesiredCounts
from swell.server.draining import END_MARGIN_SECONDS, Draining
from swell.server.ending import Ending, Way
from swell.server.external_scaler import ExternalScaler
from swell.server.external_scaler_door import ExternalScalerDoor
from swell.server.first_answers import find_endpoints
from swell.server.gateways import Gateways
from swell.server.intake import Intake
from swell.server.leadership import Leadership
from swell.server.ledger_desk import LedgerDesk
from swell.server.loops import Loop
from swell.server.model_watch import model_watch
from swell.server.money_desks import MoneyDesks
from swell.server.overrides import Overrides
from swell.server.parts import Parts
from swell.server.publish import Picture, Publication, picture_of, refused_keys, with_default_tenant
from swell.server.refused_keys import RefusedKeys
from swell.server.review_report import ReviewReport
from swell.server.rolling import roll_usage
from swell.server.scaler_memory import ScalerMemories
from swell.server.scaling import Scaling
from swell.server.spec_change import NextSpec, SpecDesk
from swell.server.stored_intents import StoredIntents
from swell.server.taking_over import take_over
from swell.server.troubles import Troubles
from swell.server.unserved import ending
from swell.server.views import gateway_url, in_flight, preparation_rows, replica_rows, server_samples, worker_rows
from swell.server.worker_roll import WorkerRoll
from swell.server.writer import Writer
from swell.state.messages import Load, Sample
from swell.state.posted_rates import PostedRate
from swell.state.records import DecisionRecord, KeyRecord
from swell.state.replica_runs import ReplicaRun
from swell.state.snapshot import Unserved

if TYPE_CHECKING:
    from swell.server.admin import AdminServer

HOUSEKEEPING_SECONDS = 30.0

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class RunningServer:
    """One server process, from its first step to its last. `tell` reaches the person who started it."""

    def __init__(self, parts: Parts, tell: Callable[[str], None] = lambda sentence: None) -> None:
        self._parts = parts
        self._troubles = Troubles(tell)
        self._clock = parts.clock
        self._started = parts.clock.monotonic()
        self._created_unix = int(parts.clock.unix())
        tenants = tuple(tenant.name for tenant in with_default_tenant(parts.spec.tenants))
        self._office = Administration(parts.store, parts.pepper, tenants, parts.clock, parts.state.default_key)
        self._writer = Writer()
        self._money = MoneyDesks(
            parts,
            self._writer,
            keys=lambda: self._keys,
            say=self._troubles.say,
            ingest=lambda: self._intake.everything(),  # noqa: PLW0108  # it is made later
            publish=self._publish,
        )
        self._budgets = self._money.budgets
        self._gateways = Gateways(parts, self._writer, self._workers_moved, self._budgets.ingested, self._troubles.say)
        self._intake = Intake(
            SpoolReader(parts.state.spool, parts.store),
            self._writer,
            parts.clock,
            self._budgets.ingested,
            self._gateways.collect,
        )
        self.ledger = LedgerDesk(parts.store, self._writer, self._intake.everything)
        self._keys: list[KeyRecord] = []
        self._refused = RefusedKeys(self._troubles.say)
        self._background = Background()
        self._roll = WorkerRoll(parts, self._writer, self._background, self._gateways.remote, self._intake.everything)
        self._changed = asyncio.Event()
        self.ending = Ending(self._changed, self._troubles.say, self._audit, self._hurry, on_signal=parts.on_signal)
        lost = self.ending.lose
        self.leadership = Leadership(parts.store, self._writer, parts.clock, lost, is_shared=parts.is_shared)
        self.has_begun = False  # it has taken over
        self.spec_desk: SpecDesk | None = None
        if parts.change is not None:
            hand_over = self.ending.hand_over
            self.spec_desk = SpecDesk(parts.wanted, parts.file, parts.change, parts.clock, hand_over)
        spec = parts.spec.server
        self._ask = HttpAsk()
        self._providers = parts.providers(lambda child_id: self._fleet.wake(), self.leadership.confirm)
        self._fleet = Fleet(
            providers=self._providers.by_name,
            intents=StoredIntents(parts.store, self._writer),
            ask=self._ask,
            clock=parts.clock,
            times=FleetTimes(log_bytes=spec.log_bytes, log_files=spec.log_files),
            renamed=self._providers.renamed,
            spared=self._providers.spared,
            on_change=self._fleet_changed,
        )
        self._draining = Draining(
            self._fleet,
            self._providers.by_name,
            self._changed,
            lambda: bool(self._roll.here or self._channel.connected()),
            self._troubles.say,
            parts.state.note_left,
        )
        self._watch = model_watch(
            parts, self._fleet, self._money.alerts.book, lambda: self._roll.living, self.ending.stop
        )
        self._channel: ControlChannel
        self._decisions = DecisionDesk(parts.store, self._writer, parts.clock, lambda: self._scaling.trail)
        self._counts = DesiredCounts(self._fleet)
        scaler = ExternalScaler(self._counts, self.leadership.confirm, self.ending.stop)
        self._scaler_door = ExternalScalerDoor(spec.external_scaler, scaler)
        self._scaling = self._make_scaling()

    async def run(self, greet: Callable[["RunningServer"], Coroutine[Any, Any, None]]) -> NextSpec | None:
        """Serve until told to stop; returns when everything has ended. Raises UserError where it cannot begin.

        `greet` runs beside the serving, from its beginning. What is returned shall be served next, and then everything
        runs on; a successor adopts it.
        """
        loop = asyncio.get_running_loop()
        self.ending.listen()
        try:
            await self._take_over()
        except BaseException:
            await self._let_go()
            raise
        self.has_begun = True
        loops = [
            Loop("fleet", lambda now: self._fleet.run(), 0.0, self._clock),
            self._intake.loop,
            *self._scaling.loops,
            self._decisions.loop,
            *self._money.loops,
            *self._watch.loops,
            *self.leadership.loops,
            Loop("budgets", self._budgets_step, TURN_SECONDS, self._clock),
            Loop("housekeeping", self._housekeeping_step, HOUSEKEEPING_SECONDS, self._clock),
        ]
        tasks = [loop.create_task(each.run(), name=each.name) for each in loops]
        await asyncio.sleep(0)  # the fleet starts the workers before this process is busy with imports
        admin = self._admin_server()
        admin_task = loop.create_task(admin.run_on_socket(), name="admin")
        tasks.append(admin_task)
        tasks.append(self._background.run(greet(self), "the greeting failed"))
        if (told := self._parts.told()) is not None:
            self.ending.request(current_principal(), told)
        try:
            await self.ending.stop.wait()
            await self._end()
        finally:
            admin.should_exit = True
            await asyncio.wait([admin_task], timeout=END_MARGIN_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._stop_listening()
            await self._let_go()
        return self.ending.following

    async def serving(self) -> bool:
        """Wait until every worker is connected and every model that shall run has a ready replica; False: stopped."""
        while not self.ending.stop.is_set():
            if self._is_serving():
                return True
            self._changed.clear()
            await self._changed.wait()
        return False

    # What the admin API asks for.

    async def act(self, function: Callable[[Administration], _Result], *, keys_changed: bool = False) -> _Result:
        """Run an administrative act on the writer thread; when it changes keys, return after they were published."""
        result = await self._writer.call(lambda: function(self._office))
        if keys_changed:
            await self._publish_keys()
        return result

    async def decisions(self, model: str | None, limit: int) -> list[DecisionRecord]:
        """The trail of scaling decisions up to now, newest first."""
        return await self._decisions.list(model, limit)

    def status(self) -> dict[str, Any]:
        """Models, replicas and workers."""
        loads, replicas = self._channel.loads(), self._fleet.replicas
        return {
            "version": __version__,
            "pid": os.getpid(),
            "url": self.url,
            "up_seconds": round(self._clock.monotonic() - self._started, 3),
            "stopping": self.ending.told is not None,
            "spec": None if self.spec_desk is None else self.spec_desk.status(),
            "refused_keys": self._refused.reasons,
            "scaling": self._scaling.rows(),
            "replicas": replica_rows(replicas, loads),
            "workers": worker_rows(replicas, loads, self._channel.connected()),
            "gateways": self._gateways.remote.rows(loads, self._channel.connected()),
            "prepared": preparation_rows(self._fleet.preparations()),
        }

    async def budgets(self) -> list[dict[str, Any]]:
        """What has become of every budget by now."""
        return self._money.budget_rows()

    async def overrides(self, act: Callable[[Overrides], _Result]) -> _Result:
        """Run an act on raises of budgets on the writer thread; return after the workers were told of it."""
        result = await self._writer.call(lambda: act(self._money.overrides))
        await self._refresh_budgets()
        return result

    async def runs(self, since_unix_ms: int | None, until_unix_ms: int | None) -> Sequence[ReplicaRun]:
        """Lives of replicas, up to now."""
        return await self._money.runs.list(since_unix_ms, until_unix_ms)

    async def rates(self, model: str | None, limit: int) -> list[PostedRate]:
        """Rates that were posted, newest first."""
        return await self._money.rates.listed(model, limit)

    async def alerts(self, limit: int, kind: str | None = None) -> list[dict[str, Any]]:
        """The newest alerts, newest first, and what became of each at every sink."""
        return await self._money.alerts.rows(limit, kind)

    async def test_alerts(self, sink: str | None, principal: str) -> list[dict[str, Any]]:
        """Send a test alert to one sink or all, now: whether each took it, and why not."""
        await self.act(lambda office: office.note(principal, "alerts.test", sink or "every sink"))
        return await self._money.alerts.test(sink)

    def review_sinks(self) -> list[str]:
        """Where reviews are sent."""
        return self._money.reviews.sinks()

    async def send_review(self, report: ReviewReport, principal: str) -> list[str]:
        """Tell the sinks of a review that somebody made: which of them."""
        await self.act(lambda office: office.note(principal, "review.send", ", ".join(report.models)))
        return await self._money.reviews.send(report)

    def request_stop(self, principal: str) -> None:
        """Begin to drain and stop; a server that hands over leaves that to its successor."""
        self.ending.request(principal)

    @property
    def url(self) -> str:
        """Where clients reach the gateway, without /v1."""
        return gateway_url(self._parts.spec.server)

    # Beginning.

    def _make_scaling(self) -> Scaling:
        parts = self._parts
        return Scaling(
            [model.spec for model in parts.models],
            self._fleet,
            parts.clock,
            loads=lambda: self._channel.loads(),  # noqa: PLW0108  # the channel is made later
            living=lambda: self._roll.living,
            make_scaler=parts.make_scaler,
            decided=self._decisions.loop.wake.set,
            counted=self._counts.look,
            saw=self._watch.decided,
            memories=ScalerMemories(parts.state.root / "scaling", parts.clock),
            spending=self._money.spending,
            pools=parts.pools,
            identities=self._providers.identities,
        )

    async def _take_over(self) -> None:
        """Adopt what runs, check the port, and be ready to answer the workers before any is started."""
        parts = self._parts
        self._fleet.want([*parts.model_workloads, parts.gateway])
        await take_over(self._fleet, self._providers, parts.store, self._writer, self._troubles)
        await self._money.begin(self._fleet.replicas)
        await self._roll.begin(self._fleet.replicas)
        epoch = await self._writer.call(parts.store.next_epoch)
        self._scaling.adopted(epoch, await self._decisions.last_counts(parts.advised))
        for sentence in self._money.spending.too_small():
            self._troubles.say(sentence)
        await self._read_keys()
        await self._budgets.begin(parts.state.spool, self._roll.living | self._gateways.remote.unfinished())
        if await self._budgets.has_new():
            await self._intake.everything()  # new budgets begin with what the ledger has
        await self._budgets.refresh()
        self._budgets.look()
        await self._money.open()
        now = self._clock.monotonic()
        self._channel = self._roll.channel = ControlChannel(
            publication=Publication(epoch, self._picture()),
            leases=LeaseBook(self._roll.living, now + EXPECT_SECONDS),
            clock=self._clock,
            is_known=lambda incarnation: self._roll.is_known(self._fleet.replicas, incarnation),
            server_samples=self._samples,
            on_change=self._workers_changed,
            on_load=self._load_arrived,
            budgets=self._budgets.book,
            save_leases=self._budgets.save,
        )
        await self._roll.account_for("")
        if self._roll.living:
            await find_endpoints(self._fleet, self._clock)
        try:
            await self._channel.open(parts.state.control_socket)
            await self._gateways.open(self._channel)
            await self._scaler_door.open()
        except BaseException:
            self._stop_listening()
            raise
        self._audit("up", current_principal())
        _log.info("the server serves", extra={"port": parts.spec.server.port, "version": __version__})

    def _admin_server(self) -> "AdminServer":
        # Imported late: the HTTP framework takes longer to load than a worker takes to start.
        from swell.server.admin import AdminServer, application

        return AdminServer(application(self), self._parts.state.admin_socket)

    # Running.

    def _fleet_changed(self) -> None:
        """Publish what changed, and book out the workers whose processes are gone."""
        self._roll.look(self._fleet.replicas)
        self._scaling.forget(self._roll.living)
        self._troubles.look(self._fleet.replicas, self._fleet.awaited)
        self._money.runs.look(self._fleet.replicas)
        self._watch.look()
        self._publish()
        self._changed.set()

    async def _read_keys(self) -> None:
        self._keys = await self._writer.call(self._parts.store.list_keys)
        self._refused.look(refused_keys(self._parts.spec.tenants, self._keys, self._clock.unix()))

    async def _publish_keys(self) -> None:
        """Tell the workers of the keys that are stored now. Raises SwellError where they could not be told."""
        await self._read_keys()
        await self._budgets.refresh()
        try:
            self._publish()
        except Exception as error:
            _log.exception("the keys could not be published")
            raise SwellError(
                "the change is stored, but the gateway workers could not be told of it and go on as before; "
                "restart the server, and see why with: swell logs server"
            ) from error

    def _publish(self) -> None:
        self._channel.publish(self._picture())

    def _picture(self) -> Picture:
        return picture_of(
            self._parts.models,
            self._parts.spec.tenants,
            self._keys,
            self._fleet.replicas,
            workers=self._roll.count,
            created_unix=self._created_unix,
            now_unix=self._clock.unix(),
            price_of=self._money.rates.rates_of,
            next_rates=self._money.rates.next_rates,
            budgets=self._budgets.limits,
            curbs=self._budgets.stages.curbs,
            identities=self._providers.identities(),
            unserved=self._unserved,
        )

    def _unserved(self, model: str) -> Unserved | None:
        if self.ending.told is Way.DOWN:
            return ending(self._fleet.replicas, model)
        return self._money.spending.unserved(model)

    def _is_serving(self) -> bool:
        connected = self._channel.connected()
        if len(connected) < self._parts.spec.server.workers:
            return False
        ready = {replica.serves for replica in self._fleet.replicas if replica.routable}
        names = {workload.serves for workload in self._parts.model_workloads}
        wanted = {each.serves for each in self._fleet.workloads if each.count}  # a budget may want none of them
        return names & wanted <= ready

    def _workers_changed(self) -> None:
        self._roll.heard()
        self._changed.set()

    def _workers_moved(self) -> None:
        """Gateways elsewhere have other workers than before."""
        self._roll.look(self._fleet.replicas)
        self._scaling.forget(self._roll.living)
        self._publish()
        self._changed.set()

    def _load_arrived(self, incarnation: str, load: Load) -> None:
        self._scaling.report(incarnation, load)
        self._watch.report(incarnation, load)
        loads = self._channel.loads()
        if self._roll.living <= loads.keys():  # a worker that has not reported may have requests open
            self._fleet.report_in_flight(in_flight(loads.values()))

    def _samples(self) -> list[Sample]:
        replicas, loads = self._fleet.replicas, self._channel.loads()
        workers, seconds = len(self._channel.connected()), self._writer.last_seconds
        refused = self._gateways.refused
        return server_samples(replicas, loads, workers=workers, store_seconds=seconds, refused=refused)

    async def _housekeeping_step(self, now: float) -> None:
        self._channel.leases.prune(now)
        await self._gateways.look()
        await self._refresh_budgets()
        await self._budgets.save()
        await roll_usage(self._parts.store, self._writer, self._clock)
        self._publish()  # keys that have expired need not be sent any more

    async def _budgets_step(self, now: float) -> None:
        if self._budgets.is_due:
            await self._refresh_budgets()
        elif self._budgets.look() or self._money.spending.look():
            self._publish()

    async def _refresh_budgets(self) -> None:
        changed = await self._budgets.refresh()
        if self._budgets.look() or changed:
            self._publish()
        if changed:
            self._channel.recall_overdrawn()

    # Ending.

    def _hurry(self) -> None:
        self._background.run(self._draining.hurry(self.ending.way), "stopping at once failed")

    async def _end(self) -> None:
        self._scaling.stop()
        await self._scaler_door.close()
        if self.ending.way is Way.LOST:
            self._stop_listening()  # they look for the server that leads
        if self.ending.way is not Way.APPLY:
            if self.ending.way is Way.DOWN:
                self._publish()  # who is held for a replica that will not come is told so
            seconds = self._parts.spec.server.timeouts.drain_seconds
            await self._draining.drain(self.ending, seconds, self._parts.model_workloads)
        if self.ending.way is not Way.LOST:
            await self._book_up()
        if self.ending.way is Way.DOWN:
            await self._money.alerts.finish()

    async def _book_up(self) -> None:
        """What is known and not stored yet. Where that fails, a successor finds it in the spools, as after a kill."""
        await self._intake.everything()
        await self._decisions.step()
        await self._money.runs.step()

    def _stop_listening(self) -> None:
        """No worker may stay with a server that tells it nothing any more."""
        self._gateways.close()
        self._channel.close()

    async def _let_go(self) -> None:
        await self._scaler_door.close()
        await self._fleet.close()
        await self._scaling.close()
        await self._ask.close()
        await self._money.alerts.close()
        await self._providers.close()
        await self.ledger.close()
        self._writer.close()

    def _audit(self, action: str, principal: str) -> None:
        subject = str(self._parts.state.root)
        note = self._writer.call(lambda: self._office.note(principal, action, subject, version=__version__))
        self._background.run(note, "an administrative act could not be audited")
