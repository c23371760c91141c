"""The chart's page: from an empty cluster to an answer, with commands that fit one another and what they install.

The clouds' own programs are not here; what their commands say of nodes is held against what Pods ask for.
"""

import json
import re
import shlex
import tomllib
from typing import Any

import pytest
from chart import ROOT, Object, objects_of, one, renew, workload
from chart_checks import spec_of

from swell.adapters.providers.accelerators import Platform, node_placement
from swell.ports.provider import Needs
from swell.spec import KubernetesSpec
from swell.state.accelerators import asked_for

PAGE = (renew.CHART / "README.md").read_text()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SECTIONS = {"laptop": "A laptop: kind", "gke": "GKE", "eks": "EKS", "aks": "AKS"}
REGISTRY = "registry.example/team/"
MOST = 10


def blocks(name: str) -> tuple[list[list[str]], list[list[str]]]:
    """The words of the commands that make an empty cluster, and of those from there to an answer."""
    section = re.search(rf"^## {SECTIONS[name]}\n(.*?)^## ", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert section is not None
    found = re.findall(r"^```sh\n(.*?)^```", section[1], flags=re.DOTALL | re.MULTILINE)
    assert len(found) == 2, "a cluster, and what is done with it"
    cluster, commands = ([shlex.split(line, comments=True) for line in _lines(block)] for block in found)
    return cluster, commands


def _lines(block: str) -> list[str]:
    return (
        block.replace("\\\n", "").replace("${REGISTRY}", REGISTRY).replace("$REGISTRY", REGISTRY).strip().splitlines()
    )


def command(commands: list[list[str]], *begin: str) -> list[str]:
    """The only command that begins so."""
    (found,) = [each for each in commands if each[: len(begin)] == list(begin)]
    return found


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def installed(commands: list[list[str]]) -> list[Object]:
    """What `helm install swell` makes."""
    helm = command(commands, "helm", "install", "swell")
    assert (ROOT / helm[3]).resolve() == renew.CHART.resolve()
    assert "--create-namespace" in helm
    path = ROOT / option(helm, "-f")
    values: dict[str, Any] = dict(renew.value_sets()[path.name.partition(".")[0]])
    assert path.is_file()
    if "--set" in helm:
        key, _, value = option(helm, "--set").partition("=")
        assert key == "image.repository"
        values["image"] = {**values["image"], "repository": value}
    return objects_of(values, release=helm[2], namespace=option(helm, "-n"))


@pytest.mark.parametrize("name", SECTIONS)
def test_an_empty_cluster_answers_after_ten_commands(name: str) -> None:
    _, commands = blocks(name)
    assert len(commands) <= MOST
    assert [words for words in commands if {"&&", ";"} & set(words)] == [], "each is one"
    installed_in = option(command(commands, "helm", "install", "swell"), "-n")
    kubectls = [words for words in commands if words[0] == "kubectl"]
    assert {option(words, "-n") for words in kubectls} == {installed_in}


@pytest.mark.parametrize("name", SECTIONS)
def test_what_is_waited_for_asked_and_forwarded_is_what_is_installed(name: str) -> None:
    _, commands = blocks(name)
    objects = installed(commands)
    server = workload(objects, "server")
    space = option(command(commands, "helm", "install", "swell"), "-n")
    assert command(commands, "kubectl", "-n", space, "rollout")[-1] == f"statefulset/{server['metadata']['name']}"
    assert server["kind"] == "StatefulSet"
    asked = command(commands, "kubectl", "-n", space, "exec")
    assert asked[4:] == [f"{server['metadata']['name']}-0", "--", "swell", "keys", "create", "me"]
    forwarded = command(commands, "kubectl", "-n", space, "port-forward")
    service = one(objects, "Service", forwarded[4].removeprefix("service/"))
    here, _, there = forwarded[5].partition(":")
    assert int(there) in {port["port"] for port in service["spec"]["ports"]}
    curl = command(commands, "curl")
    assert curl[1] == f"http://127.0.0.1:{here}/v1/chat/completions"
    (model,) = spec_of(objects).models
    assert json.loads(option(curl, "-d"))["model"] == model.name


@pytest.mark.parametrize("name", SECTIONS)
def test_the_images_that_are_built_are_those_that_are_installed(name: str) -> None:
    _, commands = blocks(name)
    objects = installed(commands)
    (container,) = workload(objects, "server")["spec"]["template"]["spec"]["containers"]
    (place,) = spec_of(objects).providers
    assert isinstance(place, KubernetesSpec)
    own = {container["image"], *(image for image in place.images.values() if image.startswith("swell-"))}
    if name == "laptop":
        assert command(commands, "make", "images") == ["make", "images"]
        assert set(command(commands, "kind", "load", "docker-image")[3:]) == own
    else:
        assert command(commands, "make", "images")[2:] == [f"IMAGE_ARGS=server --registry {REGISTRY}"]
        assert {command(commands, "docker", "push")[2]} == own
    assert all(image.endswith(f":{VERSION}") for image in own)


@pytest.mark.parametrize("name", ["gke", "aks"])
def test_the_pool_that_is_made_has_what_the_models_pods_ask_for(name: str) -> None:
    cluster, commands = blocks(name)
    (made,) = [words for words in cluster if "nodepool" in words or "node-pools" in words]
    spec = spec_of(installed(commands))
    (model,), (place,) = spec.models, spec.providers
    assert isinstance(place, KubernetesSpec)
    asked = asked_for(model.accelerators[0])
    needs = Needs(image="e", accelerator=asked.kind, accelerators=asked.count, market=place.market)
    placement = node_placement(needs, Platform(place.platform))
    wanted = {need.key: need.values for need in placement.requirements}
    assert place.market == "spot"
    if name == "gke":
        assert "--spot" in made
        accelerator = dict(pair.split("=") for pair in option(made, "--accelerator").split(","))
        assert accelerator["type"] in wanted["cloud.google.com/gke-accelerator"]
        assert accelerator["count"] == placement.resources["nvidia.com/gpu"]
        assert int(option(made, "--max-nodes")) >= model.replicas.max
    else:
        assert option(made, "--priority") == "Spot"
        assert option(made, "--node-vm-size") in wanted["node.kubernetes.io/instance-type"]
        assert int(option(made, "--max-count")) >= model.replicas.max
        key, _, rest = option(made, "--node-taints").partition("=")
        assert (key, rest) in {(each.key, f"{each.value}:NoSchedule") for each in place.tolerations}


def test_the_pool_that_the_chart_brings_to_eks_has_what_the_models_pods_ask_for() -> None:
    _, commands = blocks("eks")
    objects = installed(commands)
    (model,) = spec_of(objects).models
    asked = asked_for(model.accelerators[0])
    needs = Needs(image="e", accelerator=asked.kind, accelerators=asked.count)
    placement = node_placement(needs, Platform.EKS_AUTO)
    pool = one(objects, "NodePool")["spec"]["template"]["spec"]
    buys = {each["key"]: set(each["values"]) for each in pool["requirements"]}
    assert all(buys[need.key] & set(need.values) for need in placement.requirements)
    assert {taint["key"] for taint in pool["taints"]} <= {each.key for each in placement.tolerations}
