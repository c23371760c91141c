"""Custom resources with `swell up --ha`: only the server that leads reads them and writes what became of them."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from resource_cluster import NAMESPACE, ResourceCluster
from scripted_upstream import UpstreamThread
from swell.testing.postgres_server import PostgresServer
from swell_process import SwellUp, wait_until

pytestmark = [pytest.mark.services, pytest.mark.process]

TAKEN_SECONDS = 40.0  # from one server's end to the other's readiness; a takeover takes one or two


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ResourceCluster]:
    with ResourceCluster(tmp_path) as running:
        yield running


def test_the_one_that_leads_reads_and_writes(
    own_postgres: PostgresServer, upstream: UpstreamThread, swell_up: SwellUp, cluster: ResourceCluster, tmp_path: Path
) -> None:
    pepper = tmp_path / "pepper"
    pepper.write_bytes(secrets.token_bytes(32))
    pepper.chmod(0o600)
    where = {"kubeconfig": str(cluster.kubeconfig), "namespace": NAMESPACE}
    store = {"url": own_postgres.url(own_postgres.new_database())}
    spec = json.dumps({"models": [], "server": {"custom_resources": where, "store": store}})
    environment = {"SWELL_PEPPER_FILE": str(pepper)}
    cluster.create("models", "first", endpoints=[upstream.url])
    cluster.create("models", "local", source="pypi://package/model.gguf")
    leading = swell_up(spec, "--ha", environment=environment)
    assert leading.chat("first").status == 200
    wait_until(lambda: cluster.status("models", "first").get("phase") == "Ready")
    wait_until(lambda: cluster.condition("models", "local", "Accepted")[0] == "False")
    assert "processes that end with the server's machine" in cluster.condition("models", "local", "Accepted")[2]

    waiting = swell_up(spec, "--ha", ready=False, environment=environment)
    wait_until(lambda: "Waiting: swell " in waiting.output, seconds=TAKEN_SECONDS, what="the other one waits")
    cluster.create("models", "second", endpoints=[upstream.url])
    wait_until(lambda: leading.chat("second").status == 200)
    assert cluster.requests("list models") == 1, "who waits asks nothing"

    leading.kill()
    cluster.create("models", "third", endpoints=[upstream.url])
    waiting.wait_ready(TAKEN_SECONDS)
    waiting.key = leading.key
    wait_until(lambda: waiting.chat("third").status == 200, seconds=TAKEN_SECONDS)
    assert waiting.chat("first").status == 200
    wait_until(lambda: cluster.status("models", "third").get("phase") == "Ready")
