"""Every server and every gateway of an installation is replaced under load, and nobody notices.

All of it runs in containers of a real dockerd, with the real engine. Requests are never sent twice (`balanced_load`),
so that whatever fails for one moment fails the test.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from balanced_load import Balancer, Client, Load, problem_of
from rolling_site import GATEWAYS, LABEL, MODEL, PORT, READY_SECONDS, SERVERS, Images, Site

from swell.adapters.providers.container_body import INSTALLATION
from swell.errors import StateError
from swell.testing.docker_daemon import DockerDaemon
from swell.testing.postgres_server import PostgresServer
from swell_process import wait_until

pytestmark = [pytest.mark.services, pytest.mark.containers, pytest.mark.model, pytest.mark.timeout(1800)]

CLIENTS = 4
LONG_TOKENS = 1_200  # half a minute and more beside the others
DRAINED_TOKENS = 200  # longer than a gateway goes on accepting, and much shorter than its drain
SOME = 6  # requests that are waited for, to see that a gateway serves


@pytest.fixture
def site(docker: DockerDaemon, build_image: Callable[[str], str], model_file: Path, tmp_path: Path) -> Iterator[Site]:
    assert model_file.exists()
    images = Images(*(build_image(name) for name in ("server", "gateway", "engine-llama.cpp")))
    try:
        postgres = PostgresServer()
    except StateError as missing:
        pytest.skip(str(missing))
    with postgres:
        site = Site(docker, postgres, images, tmp_path)
        try:
            site.make()
            yield site
        finally:
            site.clear()


class Rollout:
    """An installation under load, of which one part after the other is replaced."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.balancer = Balancer()
        first, second = SERVERS
        site.start_server(first)
        wait_until(lambda: site.leads(first), seconds=READY_SECONDS, what="the first server leads")
        site.start_server(second)
        wait_until(lambda: site.waits(second), seconds=READY_SECONDS, what="the second server waits")
        self.key = site.swell(first, "keys", "create", "load")["key"]
        self.installation = site.installation(first)
        for gateway in GATEWAYS:
            site.make_credentials(first, gateway)
            site.start_gateway(gateway)
            self.balancer.put(gateway, site.until_ready(gateway))
        self.replica = self.replica_now()
        self.load = Load(self.balancer, self.key, MODEL, PORT, CLIENTS)
        self.beside: list[str] = []  # ids of requests beside the load

    def replica_now(self) -> tuple[str, str]:
        """The only one: its container, and since when it runs."""
        [seen] = self.site.replicas(self.installation)
        assert seen["State"]["Running"]
        return seen["Id"], seen["State"]["StartedAt"]

    def stream(self, tokens: int, gateway: str = "") -> "LongStream":
        """One that has begun, through this gateway or any."""
        balancer = self.balancer
        if gateway:
            balancer = Balancer()
            balancer.put(gateway, self.site.address(gateway))
        stream = LongStream(Client(balancer, self.key, MODEL, PORT), tokens)
        stream.start()
        assert stream.has_begun.wait(READY_SECONDS)
        self.beside.append(stream.request_id)
        return stream

    def until_served(self, gateway: str = "") -> None:
        """Wait until some more were answered on new connections, by this gateway or by any."""
        before = self.load.done(gateway, on_new_connections=True)
        wait_until(
            lambda: self.load.failed() or self.load.done(gateway, on_new_connections=True) >= before + SOME,
            seconds=READY_SECONDS,
            what=f"{gateway or 'somebody'} serves",
        )
        assert self.load.failed() == []

    def replace_gateway(self, gateway: str) -> None:
        """SIGTERM first; the balancer hears of it while the gateway still accepts, as kube-proxy does."""
        stream = self.stream(DRAINED_TOKENS, gateway)
        with ThreadPoolExecutor(1) as thread:
            stopping = thread.submit(self.site.stop, gateway)
            self.until_served(gateway)
            self.balancer.take_out(gateway)
            assert stopping.result() == 0
        stream.join()
        assert stream.problem == "", "it was finished before the gateway ended"
        self.until_served()
        self.site.start_gateway(gateway)
        self.balancer.put(gateway, self.site.until_ready(gateway))
        self.until_served(gateway)

    def replace_waiting(self, server: str) -> None:
        assert self.site.stop(server) == 0
        self.site.start_server(server)
        wait_until(lambda: self.site.waits(server), seconds=READY_SECONDS, what=f"{server} waits")

    def until_leads(self, server: str) -> None:
        wait_until(lambda: self.site.leads(server), seconds=READY_SECONDS, what=f"{server} leads")
        self.until_served()
        assert self.replica_now() == self.replica


class LongStream(threading.Thread):
    """One answer that takes long; when it ended, and what of it is wrong."""

    def __init__(self, client: Client, tokens: int) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._tokens = tokens
        self.has_begun = threading.Event()
        self.request_id = self.problem = ""
        self.ended = 0.0  # monotonic seconds

    def run(self) -> None:
        with self._client.open(max_tokens=self._tokens, ignore_eos=True) as (_, self.request_id, answer):
            body = answer.readline()
            self.has_begun.set()
            body += answer.read()
            self.ended = time.monotonic()
            self.problem = problem_of(answer.status, body, stream=True)


def test_everything_is_replaced_and_no_request_fails(
    site: Site, record_property: Callable[[str, object], None]
) -> None:
    volumes = _names(site, "volumes")
    begun_unix = int(time.time())
    rollout = Rollout(site)
    first, second = SERVERS
    took: dict[str, float] = {}

    def timed(what: str, act: Callable[[], None]) -> None:
        begun = time.monotonic()
        act()
        took[what] = round(time.monotonic() - begun, 1)

    rollout.load.start()
    try:
        rollout.until_served()
        for gateway in GATEWAYS:
            timed(f"replace {gateway}", lambda gateway=gateway: rollout.replace_gateway(gateway))  # type: ignore[misc]
        timed("replace the server that waits", lambda: rollout.replace_waiting(second))
        long = rollout.stream(LONG_TOKENS)
        timed("have the leader leave", lambda: _leave(site, first))
        timed("until the next one leads", lambda: rollout.until_leads(second))
        next_leads = time.monotonic()
        site.start_server(first)
        wait_until(lambda: site.waits(first), seconds=READY_SECONDS, what="the new one waits")
        long.join()
        assert long.problem == ""
        assert long.ended > next_leads, "the stream was open while the leader was replaced"
        site.kill(second)
        timed("until the next one leads after a kill", lambda: rollout.until_leads(first))
        site.start_server(second)
        wait_until(lambda: site.waits(second), seconds=READY_SECONDS, what="the new one waits")
        rollout.until_served()
    finally:
        rollout.load.stop()
    assert rollout.load.failed() == []
    assert rollout.replica_now() == rollout.replica
    assert all(rollout.load.done(gateway) > 2 * SOME for gateway in GATEWAYS)

    asked = [outcome.request_id for outcome in rollout.load.outcomes] + rollout.beside
    for gateway in GATEWAYS:
        assert site.stop(gateway) == 0
    assert site.stop(second) == 0, "the one that waits"
    site.run(first, "swell", "down", "--state", "/state")
    assert site.ended(first) == 0
    assert Counter(request for request, _ in site.ledger()) == Counter(asked)
    assert {status for _, status in site.ledger()} == {"settled"}
    assert _containers_made(site, begun_unix, rollout.installation) == 1, "no replica was started twice"
    assert site.replicas(rollout.installation) == []
    own = _names(site, "volumes") - volumes
    assert {name for name in own if not name.startswith(site.name)} == set(), "an orphan"
    assert site.docker.containers({LABEL: site.name}) == []
    record_property("requests", len(asked))
    for what, seconds in took.items():
        record_property(what, seconds)
    print(json.dumps({"requests": len(asked), **took}))


def _leave(site: Site, server: str) -> None:
    assert site.stop(server) == 0


def _names(site: Site, kind: str) -> set[str]:
    found: dict[str, Any] = site.docker.ask("GET", f"/{kind}")
    return {each["Name"] for each in found["Volumes"] or ()}


def _containers_made(site: Site, since_unix: int, installation: str) -> int:
    """How many containers of this installation were ever started, by the daemon's own book."""
    filters = json.dumps({"type": ["container"], "event": ["start"], "label": [f"{INSTALLATION}={installation}"]})
    params = {"since": str(since_unix), "until": str(int(time.time()) + 1), "filters": filters}
    return len(site.docker.read("GET", "/events", params=params).splitlines())
