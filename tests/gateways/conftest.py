"""What the tests of gateways elsewhere share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_fleet import SPEC, Fleet

from gateway_process import GatewayProcess
from scripted_upstream import UpstreamThread
from swell_process import SwellUp, choose_free_port, wait_until


@pytest.fixture
def fleet(swell_up: SwellUp, upstream: UpstreamThread, tmp_path: Path) -> Iterator[Fleet]:
    """Two gateways with a worker each."""
    port = choose_free_port()
    server = swell_up(SPEC.format(url=upstream.url, port=port), ready=False, workers=0)
    wait_until(lambda: "Gateways" in server.output or None, seconds=30, what=server.output)
    server.create_key()
    gateways = [
        GatewayProcess.of(server, tmp_path, gateways_port=port, port=choose_free_port(), name=name)
        for name in ("east", "west")
    ]
    try:
        for gateway in gateways:
            gateway.start()
        for gateway in gateways:
            wait_until(gateway.is_ready, seconds=30, what=gateway.output)
        yield Fleet(server, gateways, port)
    finally:
        for gateway in gateways:
            gateway.end()
