"""Entry of a gateway worker: `python -m swell.server.gateway_worker --settings FILE`.

Lean on purpose: a worker starts in a fraction of a second and holds neither the spec's validator, the
database layer nor an HTTP framework in memory. A test pins what it may import.
"""

import sys
from pathlib import Path

import msgspec

from swell.gateway.worker import run_worker
from swell.state.worker import WorkerSettings


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM; 0 after a drained stop, 2 for settings that cannot be used."""
    if len(arguments) != 2 or arguments[0] != "--settings":
        print("usage: python -m swell.server.gateway_worker --settings FILE", file=sys.stderr)
        return 2
    try:
        settings = msgspec.json.decode(Path(arguments[1]).read_bytes(), type=WorkerSettings)
    except (OSError, msgspec.MsgspecError) as error:
        print(f"cannot read worker settings from {arguments[1]}: {error}", file=sys.stderr)
        return 2
    run_worker(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
