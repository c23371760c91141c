"""An alert sink that sends nothing, with fault injection."""

import asyncio
from collections import deque

from swell.errors import RetryLater, SwellError
from swell.ports.alert_sink import RETRY_SECONDS
from swell.state.alerts import Alert

MAX_REMEMBERED = 10_000  # alerts


class FakeAlertSink:
    """Takes alerts, and goes wrong on demand.

    `fail_next`: errors that the next deliveries raise, first one first. `silent`: deliveries from now on hang and end
    as a real sink's do at its time limit, when `time_out` is called. `begun` is set by every delivery.
    """

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.delivered: deque[Alert] = deque(maxlen=MAX_REMEMBERED)
        self.fail_next: deque[SwellError] = deque()
        self.silent = False
        self.begun = asyncio.Event()
        self.in_progress = 0
        self.closed = False
        self._timed_out = asyncio.Event()

    async def deliver(self, alert: Alert) -> None:
        self.begun.set()
        if self.silent:
            self.in_progress += 1
            try:
                await self._timed_out.wait()
            finally:
                self.in_progress -= 1
            raise RetryLater(f"alert sink {self.name} did not answer", retry_after_seconds=RETRY_SECONDS)
        if self.fail_next:
            raise self.fail_next.popleft()
        self.delivered.append(alert)

    def time_out(self) -> None:
        """End the deliveries that hang, now and later."""
        self._timed_out.set()

    async def close(self) -> None:
        self.closed = True
