"""Alert sinks by the kind that the spec names.

To add one: write a sibling that honours `swell.ports.alert_sink`, list it here, and give it a spec in
`swell.spec.alerts`.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from swell.adapters.sinks.command import CommandSink
from swell.adapters.sinks.email import EmailSink
from swell.adapters.sinks.slack import SlackSink
from swell.adapters.sinks.surroundings import Surroundings
from swell.adapters.sinks.webhook import WebhookSink
from swell.clock import Clock, SystemClock
from swell.ports.alert_sink import AlertSink
from swell.spec.alerts import SinkSpec

SINKS: Mapping[str, Callable[[Any, Surroundings], AlertSink]] = {
    "webhook": WebhookSink.open,
    "slack": SlackSink.open,
    "email": EmailSink.open,
    "command": CommandSink.open,
}
"""By kind; each takes the spec of its kind."""


def open_sink(spec: SinkSpec, environ: Mapping[str, str] | None = None, clock: Clock | None = None) -> AlertSink:
    """The sink that a spec describes; its secrets are read now, from `environ` (default: the process's own).

    Sends nothing yet. Raises UserError where a secret cannot be had or is unusable.
    """
    surroundings = Surroundings(os.environ if environ is None else environ, clock or SystemClock())
    return SINKS[spec.kind](spec, surroundings)


__all__ = ["SINKS", "open_sink"]
