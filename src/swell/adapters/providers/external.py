"""The provider of what somebody else runs: nothing is started, found or stopped; only health says how it fares."""

from pathlib import Path

from swell.ports.provider import Binding, ChildHandle, ChildSpec, ChildStatus, Presence


class ExternalProvider:
    """Every endpoint is taken to run, until it is stopped, which only means that it is no longer used."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    @property
    def binding(self) -> Binding:
        """Unused: what somebody else runs listens where they say."""
        return Binding()

    async def start(self, child: ChildSpec) -> ChildHandle:
        self._used.add(child.child_id)
        return ChildHandle(child.child_id, child.log_path, pid=0, start_time=0.0)

    async def adopt(self, child_id: str, log_path: Path, known: ChildHandle | None) -> ChildHandle | None:
        """None: an endpoint costs nothing to take up anew."""
        return None

    def status(self, handle: ChildHandle) -> ChildStatus:
        return ChildStatus(Presence.RUNNING if handle.child_id in self._used else Presence.GONE)

    async def stop(self, handle: ChildHandle, *, grace_seconds: float) -> None:
        self._used.discard(handle.child_id)

    async def end_orphans(self) -> None:
        return

    async def log_tail(self, log_path: Path) -> str:
        return ""

    async def rotate_log(self, log_path: Path, *, max_bytes: int, files: int) -> None:
        return

    async def forget(self, handle: ChildHandle) -> None:
        self._used.discard(handle.child_id)
