"""Models and tenants as custom resources, with a real `swell up` and a cluster of make-believe."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resource_cluster import NAMESPACE, ResourceCluster
from scripted_upstream import UpstreamThread
from swell_process import SwellUp, wait_until

pytestmark = pytest.mark.process

CHANGING = "the server changes its spec"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ResourceCluster]:
    with ResourceCluster(tmp_path) as running:
        yield running


def spec_for(cluster: ResourceCluster, **others: Any) -> str:
    where = {"kubeconfig": str(cluster.kubeconfig), "namespace": NAMESPACE}
    return json.dumps({"models": [], **others, "server": {"custom_resources": where}})


def test_a_model_appears_is_served_is_changed_is_refused_and_is_deleted(
    swell_up: SwellUp, upstream: UpstreamThread, cluster: ResourceCluster
) -> None:
    cluster.create("models", "first", endpoints=[upstream.url])
    server = swell_up(spec_for(cluster))
    assert server.chat("first").status == 200

    cluster.create("models", "second", endpoints=[upstream.url], n_max=1)
    wait_until(lambda: server.chat("second").status == 200, what="the second model is served")
    wait_until(lambda: cluster.status("models", "second").get("phase") == "Ready", what="its status says so")
    status = cluster.status("models", "second")
    assert (status["observedGeneration"], status["replicas"]) == (1, {"ready": 1, "wanted": 1})
    assert cluster.condition("models", "second", "Ready") == ("True", "Ready", "1 of 1 replicas are ready")

    assert server.chat("second", n=2).status == 400
    cluster.change("models", "second", endpoints=[upstream.url], n_max=4)
    wait_until(lambda: server.chat("second", n=2).status == 200, what="the change is served")
    wait_until(lambda: cluster.status("models", "second")["observedGeneration"] == 2)

    cluster.change("models", "second", endpoints=[upstream.url, upstream.url], replicas={"min": 3, "max": 2})
    wait_until(lambda: cluster.condition("models", "second", "Accepted")[0] == "False", what="it is refused")
    assert cluster.condition("models", "second", "Accepted")[1:] == (
        "Invalid",
        "spec.replicas.min: 3 is more than max (2); lower min or raise max",
    )
    assert cluster.status("models", "second")["observedGeneration"] == 3
    assert cluster.condition("models", "second", "Ready")[:2] == ("False", "NotAccepted")
    wait_until(lambda: server.chat("second").status == 404, what="what is refused is not served")
    assert server.chat("first").status == 200

    cluster.delete("models", "first")
    wait_until(lambda: server.chat("first").status == 404, what="the first model is gone")
    assert "Traceback" not in (server.state / "logs" / "server.log").read_text()
    assert server.stop() == 0


def test_a_name_of_the_file_and_secrets_of_the_server_are_refused(
    swell_up: SwellUp, upstream: UpstreamThread, cluster: ResourceCluster
) -> None:
    own = {"name": "chat", "endpoints": [upstream.url]}
    cluster.create("models", "mine", name="chat", endpoints=["http://127.0.0.1:9"])
    cluster.create("models", "thief", endpoints=[upstream.url], api_key_file="/etc/passwd")
    cluster.create("models", "lost", source="/no/such/file.gguf")
    cluster.create("tenants", "search", limits={"requests_per_minute": 5})
    server = swell_up(spec_for(cluster, models=[own]))
    assert server.chat("chat").status == 200
    wait_until(lambda: cluster.status("tenants", "search").get("phase") == "Accepted", what="all are told of")
    for each in ("mine", "thief", "lost"):
        wait_until(lambda name=each: cluster.condition("models", name, "Accepted")[0] == "False", what=each)
    assert cluster.condition("models", "mine", "Accepted")[1] == "NameTaken"
    assert "api_key_file" in cluster.condition("models", "thief", "Accepted")[2]
    assert cluster.condition("models", "lost", "Accepted")[1] == "Unavailable"
    assert "/no/such/file.gguf" in cluster.condition("models", "lost", "Accepted")[2]
    refused = {row["name"]: row for row in server.command("status")["spec"]["refused_resources"]}
    assert {name: (row["kind"], row["reason"]) for name, row in refused.items()} == {
        "lost": ("Model", "Unavailable"),
        "mine": ("Model", "NameTaken"),
        "thief": ("Model", "Invalid"),
    }
    shown = subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "status", "--state", str(server.state)],
        capture_output=True, text=True, timeout=30, check=False, env=server.environment,
    ).stdout  # fmt: skip
    assert f"The Model mine is refused (NameTaken): {refused['mine']['message']}" in shown
    server.create_key("searching", "--tenant", "search")
    statuses = [server.chat("chat").status for _ in range(6)]
    assert statuses == [200] * 5 + [429]
    cluster.delete("tenants", "search")
    wait_until(lambda: server.chat("chat").status in (401, 403), what="keys of a tenant that is gone are refused")


def test_a_killed_server_and_a_forgetful_cluster(
    swell_up: SwellUp, upstream: UpstreamThread, cluster: ResourceCluster
) -> None:
    cluster.create("models", "first", endpoints=[upstream.url])
    server = swell_up(spec_for(cluster))
    assert server.chat("first").status == 200
    wait_until(lambda: cluster.status("models", "first").get("phase") == "Ready")
    since = cluster.status("models", "first")["conditions"]
    lists = cluster.requests("list models")

    changes = server.logs().count(CHANGING)
    cluster.create("models", "second", endpoints=[upstream.url])
    wait_until(lambda: server.logs().count(CHANGING) > changes, what="a successor takes over")
    server.kill()
    cluster.create("models", "meanwhile", endpoints=[upstream.url])
    server.start()
    wait_until(lambda: server.chat("meanwhile").status == 200, what="the next server serves what appeared meanwhile")
    wait_until(lambda: server.chat("second").status == 200, what="and what a successor was to serve")
    wait_until(lambda: cluster.status("models", "second").get("phase") == "Ready")
    assert [each["lastTransitionTime"] for each in cluster.status("models", "first")["conditions"]][:1] == [
        each["lastTransitionTime"] for each in since
    ][:1]
    assert cluster.requests("list models") == lists + 1

    cluster.create("models", "third", endpoints=[upstream.url])
    cluster.do(cluster.cluster.forget_events)
    cluster.do(cluster.cluster.break_watches)
    wait_until(lambda: server.chat("third").status == 200, what="a forgotten version begins with a list")
    wait_until(lambda: cluster.status("models", "third").get("phase") == "Ready")
    written = cluster.requests("patch models")
    cluster.do(cluster.cluster.bookmark)
    wait_until(lambda: server.chat("third").status == 200)
    assert cluster.requests("patch models") == written, "what has not changed is not written again"


def test_a_status_that_meets_a_conflict_is_written_later(
    swell_up: SwellUp, upstream: UpstreamThread, cluster: ResourceCluster
) -> None:
    cluster.refuse("patch", "models", 409, "the object has been modified")
    cluster.create("models", "first", endpoints=[upstream.url])
    server = swell_up(spec_for(cluster))
    assert server.chat("first").status == 200
    wait_until(lambda: cluster.requests("patch models") > 0, what="the status was tried")
    assert cluster.status("models", "first") == {}
    cluster.answer_again()
    wait_until(lambda: cluster.status("models", "first").get("phase") == "Ready", seconds=20.0)
