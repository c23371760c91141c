"""What a Pod does before its engine is asked to end: wait until the engine is idle.

A Pod that Swell lets go has been drained before. One that a node's drain, an eviction or a reclaimed machine ends has
not: its gateway hears of it by the Pod's own deletion, and what runs shall finish. So SIGTERM is held back until the
engine says that it does nothing, or the Pod's grace is over.
"""

import math
from collections.abc import Mapping

from swell.ports.engine import EngineMetrics
from swell.ports.provider import Lifecycle

SETTLE_SECONDS = 2.0  # until every gateway surely knows that the Pod ends
POLL_SECONDS = 0.5
ASK_SECONDS = 2.0
PYTHON = "python3"  # of the engine's image

# Nothing of the engine's environment is imported. An engine that refuses to be asked has ended, or never tells; one
# that takes too long to answer is busy.
SCRIPT = f"""
import os, sys, time, urllib.request
url, wait = os.path.expandvars(sys.argv[1]), float(sys.argv[4])
variables, names = sys.argv[2].split(","), sys.argv[3].split(",")
key = next((os.environ[name] for name in variables if os.environ.get(name)), "")
request = urllib.request.Request(url, headers={{"authorization": "Bearer " + key}} if key else {{}})
time.sleep(wait)
while True:
    try:
        with urllib.request.urlopen(request, timeout={ASK_SECONDS:g}) as answer:
            text = answer.read().decode("utf-8", "replace")
        found = [line.rsplit(None, 1)[-1] for line in text.splitlines()
                 if line.partition("{{")[0].partition(" ")[0] in names]
        if not any(float(value) > 0 for value in found):
            sys.exit(0)
    except (OSError, ValueError) as error:
        if not isinstance(getattr(error, "reason", error), TimeoutError):
            sys.exit(0)
    time.sleep({POLL_SECONDS:g})
"""


def wait_until_idle(port: int, metrics: EngineMetrics, env: Mapping[str, str], host: str = "127.0.0.1") -> list[str]:
    """The command that returns once the engine is idle; `env` holds the key that it asks for, under any name.

    `host` is where the engine answers; a variable in it, such as `${NAME}`, is that of the Pod.
    """
    names = ",".join(name for name in (metrics.running_requests, metrics.waiting_requests) if name)
    if not metrics.path or not names:
        return [PYTHON, "-c", f"import time; time.sleep({SETTLE_SECONDS:g})"]
    keys = ",".join(sorted(name for name in env if name.endswith("_KEY")))
    return [PYTHON, "-c", SCRIPT, f"http://{host}:{port}{metrics.path}", keys, names, f"{SETTLE_SECONDS:g}"]


def termination_seconds(lifecycle: Lifecycle) -> int:
    """The grace of a Pod whose end nobody prepared: gateways must hear of it, requests finish, the engine end."""
    return math.ceil(SETTLE_SECONDS + lifecycle.drain_seconds + lifecycle.stop_grace_seconds)
