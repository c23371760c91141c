"""A release of the chart where Pods really run, with the real engine: from zero and back, moved, upgraded, gone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_site import ClusterSite, Values, is_ready, unchanged

from swell_process import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.model, pytest.mark.timeout(1800)]

CLIENTS = 6
SOME = 6  # requests that are waited for
IDLE_SECONDS = 20
LONG_TOKENS = 1_500
DRAIN_SECONDS = 180.0  # machines may be small, and busy
CHANGE_SECONDS = 240.0
SELECTED = "app.kubernetes.io/instance=swell"
PEPPER = bytes(range(32))


def test_a_model_comes_from_zero_grows_and_goes_back_and_nothing_is_cut(site: ClusterSite) -> None:
    served = {"replicas": {"min": 0, "max": 2}, "scaling": {"idle_seconds": IDLE_SECONDS}}
    site.install(site.values(place_has={"prefetch": {"images": True}}, **served))
    site.rolled_out("statefulset/swell")
    wait_until(
        lambda: [each["progress"] for each in site.swell("swell-0", "status")["prepared"]] == ["done"],
        seconds=CHANGE_SECONDS,
        what="the engine's image is there before anybody asks",
    )
    assert site.replicas() == {}
    key = site.swell("swell-0", "keys", "create", "tests")["key"]

    first = site.ask(key, "stream", 8).result()
    print(json.dumps({"from zero": first}))
    assert first["problem"] == "", "the request that nothing could answer yet was held"
    load = site.ask(key, "load", CLIENTS)
    site.until_replicas(2)
    until_served(load)
    long = site.ask(key, "stream", LONG_TOKENS)
    result = load.result()
    assert result["failed"] == []
    assert result["done"] == result["asked"]
    assert long.result()["problem"] == "", "what was left over went once it was idle"
    site.until_replicas(0)
    last = site.swell("swell-0", "status", "--why")["decisions"][0]
    assert (last["model"], last["replicas"], last["binding"]) == ("small", 0, "idle")

    again = site.ask(key, "stream", 8)
    assert again.result()["problem"] == ""
    assert site.swell("swell-0", "usage", "--by", "model")["total"]["requests"] == result["asked"] + 3

    site.uninstall()
    wait_until(lambda: not site.replicas(), seconds=CHANGE_SECONDS, what="no replica is left")
    assert site.get("daemonsets", namespace=site.engines) == []
    left = site.get("deployments", namespace=site.engines)
    assert {item["spec"]["replicas"] for item in left} == {0}
    assert site.get("statefulsets,deployments,services,networkpolicies,serviceaccounts", "-l", SELECTED) == []


def test_pods_that_others_delete_cut_no_request(site: ClusterSite) -> None:
    site.install(site.values(place_has=site.behind_tls, replicas={"min": 2, "max": 2}, drain_seconds=DRAIN_SECONDS))
    site.rolled_out("statefulset/swell")
    before = site.until_replicas(2)
    key = site.swell("swell-0", "keys", "create", "tests")["key"]
    load = site.ask(key, "load", CLIENTS)
    long = [site.ask(key, "stream", 400) for _ in range(4)]
    until_served(load)
    for pod in before.values():
        kept = set(site.replicas()) - {pod["metadata"]["uid"]}
        site.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=true", namespace=site.engines)
        wait_until(lambda kept=kept: kept < set(site.until_replicas(2)), seconds=CHANGE_SECONDS, what="another one")
        until_served(load)
    assert [each.result()["problem"] for each in long] == [""] * 4
    assert load.result()["failed"] == []
    assert not set(before) & set(site.replicas())


def until_served(load: Any) -> None:
    """Wait until some more were answered."""
    before = load.progress()["done"]

    def some_more() -> bool:
        found = load.progress()
        return bool(found["failed"]) or found["done"] >= before + SOME

    wait_until(some_more, seconds=CHANGE_SECONDS, what="requests are answered")


def several_servers(site: ClusterSite, folder: Path) -> Values:
    """Two of them and two gateways, with all that they show each other."""
    for words in (["server", "--server"], ["gateway"]):
        command = [sys.executable, "-m", "swell.cli.main", "credentials", *words, "--state", str(folder / "authority")]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        files = {path.name.replace(".", "_"): path.read_bytes() for path in (folder / words[0]).iterdir()}
        site.secret(f"swell-control-{words[0]}", **files)
    site.secret("swell-pepper", pepper=PEPPER)
    site.secret("swell-database", url=site.settings.database.encode())
    claim = {"size": "1Gi", "storageClass": site.settings.storage_class}
    small = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    image = {"repository": f"{site.settings.registry}swell-gateway"}
    return {
        **site.values(place_has=site.behind_tls, replicas={"min": 1, "max": 1}),
        "gateways": {"enabled": True, "replicas": 2, "image": image, "state": claim, "resources": small},
        "control": {"serverSecret": "swell-control-server", "gatewaySecret": "swell-control-gateway"},
        "highAvailability": {"enabled": True, "servers": 2},
        "secrets": {"storeUrl": {"name": "swell-database"}, "pepper": {"name": "swell-pepper"}},
    }


def leader(site: ClusterSite) -> str:
    """The Pod of the server that decides; empty where none does now."""
    pods = site.get("pods", "-l", f"{SELECTED},app.kubernetes.io/component=server")
    for name in [pod["metadata"]["name"] for pod in pods if is_ready(pod)]:
        said = site.kubectl("exec", name, "-c", "server", "--", "swell", "status", "--json", check=False)
        if said and "scaling" in json.loads(said):
            return str(name)
    return ""


def settled(site: ClusterSite) -> int:
    """Requests in the ledger."""
    return int(site.swell(leader(site), "usage", "--by", "model")["total"]["requests"])


def test_servers_and_gateways_are_replaced_under_load_and_no_request_fails(
    site: ClusterSite, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if not site.settings.database:
        pytest.skip("no database for several servers: set SWELL_TEST_DATABASE to an empty one that Pods reach")
    values = several_servers(site, tmp_path)
    site.install(values)
    owners = ("deployment/swell", "statefulset/swell-gateway")
    site.rolled_out(*owners)
    site.until_replicas(1)
    leads = wait_until(lambda: leader(site), seconds=CHANGE_SECONDS, what="one leads")
    key = site.swell(leads, "keys", "create", "tests")["key"]
    before = settled(site)
    load = site.ask(key, "load", CLIENTS)
    until_served(load)
    with unchanged(site):
        values["podAnnotations"] = {"round": "2"}
        values["gateways"]["podAnnotations"] = {"round": "2"}
        site.upgrade(values)
        site.rolled_out(*owners)
        until_served(load)
        killed = wait_until(lambda: leader(site), seconds=CHANGE_SECONDS, what="one leads")
        site.kubectl("delete", "pod", killed, "--grace-period=0", "--force")
        wait_until(lambda: leader(site) not in ("", killed), seconds=CHANGE_SECONDS, what="another one leads")
        site.rolled_out(*owners)
        until_served(load)
    result = load.result()
    record_property("requests", result["asked"])
    print(json.dumps({"requests": result["asked"], "failed": result["failed"]}))
    assert result["failed"] == []
    asked = before + result["asked"]
    wait_until(lambda: settled(site) >= asked, seconds=CHANGE_SECONDS, what="all usage is there")
    assert settled(site) == asked
    site.uninstall()
    wait_until(lambda: not site.replicas(), seconds=CHANGE_SECONDS, what="no replica is left")
