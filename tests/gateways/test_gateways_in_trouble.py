"""Gateways elsewhere, and their server, where something of what they need fails; real processes."""

import socket

import pytest
from gateway_fleet import Fleet

from scripted_upstream import UpstreamThread
from swell_process import SwellUp, wait_until

pytestmark = pytest.mark.process

LEFT_AT_ONCE_SECONDS = 10.0  # a gateway that waits for what is not usage takes LAST_USAGE_SECONDS longer


def test_a_taken_port_is_told_and_workers_stay_with_the_server_that_goes_on(
    swell_up: SwellUp, upstream: UpstreamThread
) -> None:
    server = swell_up(f'models: [{{name: m, engine: external, endpoints: ["{upstream.url}"]}}]', workers=2)
    file = server.state.parent / "swell.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file.write_text(f"{file.read_text()}\nserver: {{gateways: {{port: {taken.getsockname()[1]}}}}}\n")
        for _ in range(3):
            refused = server.command("apply", "-f", str(file), check=False)
            assert "choose another one with server.gateways; the server goes on as before" in refused["error"]
    assert server.chat().status == 200
    server.command("keys", "revoke", server.key_id)
    wait_until(
        lambda: {server.chat().status for _ in range(10)} == {401}, seconds=2, what="every worker was told of it"
    )


def test_a_worker_that_could_not_be_started_is_tried_again(fleet: Fleet) -> None:
    east = fleet.gateways[0]
    folder, aside = east.state / "workers", east.state / "aside"
    folder.rename(aside)
    folder.touch()  # as on a full disk, nothing can be written there
    east.workers()[0].kill()
    wait_until(lambda: "could not be started" in east.output, what=east.output)
    folder.unlink()
    aside.rename(folder)
    wait_until(east.is_ready, seconds=30, what=east.output)
    assert fleet.chat(0) == 200


def test_what_is_no_usage_does_not_hold_up_a_gateways_end(fleet: Fleet) -> None:
    east = fleet.gateways[0]
    east.kill()
    wait_until(lambda: not east.workers(), seconds=40, what="its workers have ended")
    spools = east.state / "spool"
    (spools / "0123-1.damaged").write_bytes(b"what a reader has set aside")
    (spools / "4567").mkdir(mode=0o700)
    (spools / "4567" / "lock").touch()  # of a worker that was killed before it could write
    east.start()
    wait_until(east.is_ready, seconds=30, what=east.output)
    assert east.stop(LEFT_AT_ONCE_SECONDS) == 0
    assert east.spools() == ["0123-1.damaged"]
