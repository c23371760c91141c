"""Taking over what an earlier server left running, place by place.

A place that does not answer keeps no other from being taken over: what the store knows of it is left as it is, counted
as what runs, and found out about as soon as the place answers. Until then nothing is started there and nothing ended.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from swell.clock import Clock
from swell.control.intents import Intents, from_record, in_place
from swell.control.launch import MAX_TOGETHER, not_heard
from swell.control.replica import Replica
from swell.control.workload import GATEWAY_WORKER, Workload
from swell.errors import AtCapacity, SwellError
from swell.ports.provider import ChildHandle, Provider
from swell.state.records import ProcessRecord, StartedProcess
from swell.state.replica import Phase

ASK_AGAIN_SECONDS = 5.0  # from one try to reach an awaited place to the next, at least


class Adoption:
    """Finds who still runs. `begin` once; then `look` in every step. One event loop.

    `renamed` says of providers that the store may call by an earlier name what they are called now. `spared` are those
    of which nothing is wanted any more. `answered` is called when there may be something to `look` at.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        intents: Intents,
        clock: Clock,
        renamed: Mapping[str, str],
        spared: Collection[str],
        answered: Callable[[], None],
    ) -> None:
        self._providers = providers
        self._intents = intents
        self._clock = clock
        self._renamed = renamed
        self._spared = spared
        self._answered = answered
        self._workloads: Mapping[str, Workload] = {}
        self._unseen: dict[str, Replica] = {}  # by child id, as stored
        self._asking: dict[str, asyncio.Task[list[Replica]]] = {}  # by awaited place
        self._ask_at: dict[str, float] = {}  # as well
        self._may_await = False
        self.left_out: dict[str, str] = {}  # spared providers that could not be asked, and why
        self.awaited: dict[str, str] = {}  # providers that have not answered yet, and why

    async def begin(self, workloads: Mapping[str, Workload], *, awaits: bool) -> list[Replica]:
        """Who runs, or may run in a place that does not answer; whoever ended meanwhile is forgotten.

        Raises SwellError, AtCapacity for a place that cannot be asked: any one, or with `awaits` only where no server
        has ever started anything, so that a mistake is likelier than an outage.
        """
        self._workloads = workloads
        now, found, gone = self._clock.monotonic(), list[Replica](), list[str]()
        stored = list(self._stored(await self._intents.list_processes(), now))
        self._may_await = awaits and any(replica.kind != GATEWAY_WORKER for _, replica in stored)
        changed: list[tuple[ProcessRecord, Replica]] = []
        for record, replica in stored:
            known = await self._find(replica)
            if known is not None:
                found.append(known)
                changed.append((record, known))
            elif self._is_awaited(replica):
                found.append(self._keep(replica, now))
            elif (place := self._name_now(replica)) in self._providers and place not in self.left_out:
                gone.append(record.process_id)
        for begin in range(0, len(gone), MAX_TOGETHER):
            await self._intents.remove_processes(gone[begin : begin + MAX_TOGETHER])
        await self._note(changed)
        for place in [each for each in self._providers if each not in self.left_out and each not in self.awaited]:
            try:
                await self._providers[place].end_orphans()
            except AtCapacity as away:
                self._do_without(place, away)
        return found

    def look(self, now: float) -> list[Replica]:
        """Those of whom it has become known whether they run: `alive` says so. Asks again where it is time."""
        told: list[Replica] = []
        for place in list(self.awaited):
            task = self._asking.get(place)
            if task is None:
                if now >= self._ask_at.get(place, now):
                    task = self._asking[place] = asyncio.create_task(self._ask(place))
                    task.add_done_callback(lambda _: self._answered())
            elif task.done():
                del self._asking[place]
                try:
                    told += task.result()
                    del self.awaited[place]
                except SwellError as away:
                    self.awaited[place] = str(away)
                    self._ask_at[place] = now + max(ASK_AGAIN_SECONDS, getattr(away, "retry_after_seconds", 0.0))
        running = {replica.child_id for replica in told}
        for replica in [each for each in self._unseen.values() if not self._is_awaited(each)]:
            del self._unseen[replica.child_id]
            if replica.child_id not in running:
                told.append(replace(replica, alive=False))
        return told

    async def close(self) -> None:
        """Ask no more."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    def _stored(self, records: Sequence[ProcessRecord], now: float) -> Iterator[tuple[ProcessRecord, Replica]]:
        for record in records:
            try:
                yield record, from_record(record, now)
            except ValueError:
                continue

    def _keep(self, replica: Replica, now: float) -> Replica:
        """One that may run: what it was is what it is until its place answers."""
        self._unseen[replica.child_id] = replica
        ready = replica.to(Phase.READY, now)
        place = next(place for place in self._places_of(replica) if place in self.awaited)
        return replace(ready, alive=True, unseen=True, waiting=not_heard(place, self.awaited[place]))

    async def _ask(self, place: str) -> list[Replica]:
        """Who runs of those that may run there. Raises SwellError."""
        told: list[Replica] = []
        provider = self._providers[place]
        for replica in [each for each in self._unseen.values() if place in self._places_of(each)]:
            handle = await provider.adopt(replica.child_id, self._log_path(replica, provider), replica.handle)
            if handle is not None:
                told.append(self._adopted(replica, place, handle))
        if told:
            stored = {record.process_id: record for record in await self._intents.list_processes()}
            await self._note([(stored[each.child_id], each) for each in told if each.child_id in stored])
        await provider.end_orphans()
        return told

    async def _note(self, changed: Sequence[tuple[ProcessRecord, Replica]]) -> None:
        """Store where those run that were found, where that is new."""
        moved = [in_place(record, now.provider) for record, now in changed if record.detail["provider"] != now.provider]
        found = [
            StartedProcess(record.process_id, now.handle.pid, now.handle.start_time)
            for record, now in changed
            if now.handle is not None and record.pid != now.handle.pid
        ]
        for begin in range(0, len(moved), MAX_TOGETHER):
            await self._intents.record_processes(moved[begin : begin + MAX_TOGETHER])
        for begin in range(0, len(found), MAX_TOGETHER):
            await self._intents.record_started(found[begin : begin + MAX_TOGETHER])

    async def _find(self, replica: Replica) -> Replica | None:
        """Who still runs, in the place that it is stored with, or where its like run now: that may be the same one
        under another name, which a server that has the store alone was not told."""
        for place in self._places_of(replica):
            if place in self.left_out or place in self.awaited:
                continue
            provider = self._providers[place]
            try:
                handle = await provider.adopt(replica.child_id, self._log_path(replica, provider), replica.handle)
            except AtCapacity as away:
                self._do_without(place, away)
                continue
            if handle is not None:
                return self._adopted(replica, place, handle)
        return None

    def _adopted(self, replica: Replica, place: str, handle: ChildHandle) -> Replica:
        log_path = self._log_path(replica, self._providers[place])
        return replace(replica, provider=place, log_path=log_path, handle=handle, alive=True)

    def _log_path(self, replica: Replica, provider: Provider) -> Path:
        """One with a network of its own has its log copied: to this server, which may not be the one before."""
        workload = self._workloads.get(replica.workload)
        if workload is not None and provider.binding.port is not None:
            return workload.log_path(replica.ordinal)
        return replica.log_path

    def _is_awaited(self, replica: Replica) -> bool:
        return any(place in self.awaited for place in self._places_of(replica))

    def _places_of(self, replica: Replica) -> list[str]:
        workload = self._workloads.get(replica.workload)
        places = [self._name_now(replica), *([workload.provider] if workload is not None else [])]
        return [each for each in dict.fromkeys(places) if each in self._providers]

    def _do_without(self, place: str, away: AtCapacity) -> None:
        """Leave out one of which nothing is wanted, and wait for any other one."""
        if place in self._spared:
            self.left_out[place] = str(away)
        elif self._may_await:
            self.awaited[place] = str(away)
        else:
            raise AtCapacity(f"{place}: {away}", retry_after_seconds=away.retry_after_seconds) from away

    def _name_now(self, replica: Replica) -> str:
        return self._renamed.get(replica.provider, replica.provider)
