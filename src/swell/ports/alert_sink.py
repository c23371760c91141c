"""Where alerts go. One sibling per kind in `swell.adapters.sinks`; deciding when to try again is `metering.notify`.

Contract for every implementation:

- `deliver` returns when the other side has taken the alert, and raises otherwise: RetryLater where the same alert may
  be taken later (unreachable, busy, too slow), SinkRefusedError where it never will be before somebody changes
  something. Nothing else is raised, and the message never holds a secret: no password, and no path or query of a URL.
- It takes no longer than the sink's own bound (MAX_DELIVER_SECONDS at most), however slow the other side is, and can
  be cancelled; then nothing that it started goes on for longer than that.
- Delivery is at least once: after RetryLater or a cancellation the alert may have arrived. Each delivery of one alert
  carries the same `alert_id`, by which the receiver can tell.
- Any text can be delivered. What does not fit the medium is shortened or replaced, and nothing in an alert is taken
  for markup, a header, an argument or an address.
- Several deliveries may run at once. `close` may be called twice; `deliver` is not called afterwards.
"""

from typing import Protocol

from swell.errors import UserError
from swell.state.alerts import Alert

MAX_DELIVER_SECONDS = 300.0
RETRY_SECONDS = 5.0  # `retry_after_seconds` where the other side does not say; whoever retries waits longer each time


class SinkRefusedError(UserError):
    """The alert, or any alert, is not taken as things are; the message says what to change."""


class AlertSink(Protocol):
    """One place that alerts are sent to."""

    @property
    def name(self) -> str:
        """As the spec names it."""

    async def deliver(self, alert: Alert) -> None:
        """Hand the alert over. Raises RetryLater or SinkRefusedError."""

    async def close(self) -> None:
        """Let go of connections."""
