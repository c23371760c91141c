"""What is in `deploy/` agrees with the code: images, metrics, files that are mounted, the spec that is served."""

import json
import re
import tomllib

import pytest
import yaml
from source_tree import ROOT

from swell.observe.metrics import METRICS, family
from swell.server.gateway_arguments import gateway_parser
from swell.server.several import require_movable
from swell.spec import ContainerSpec, load_spec

DEPLOY = ROOT / "deploy"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGES = ("gateway", "server", "engine-llama.cpp")


ALONE, SEVERAL = "compose.yaml", "compose.ha.yaml"


def compose(file: str = ALONE) -> dict[str, dict[str, dict[str, object]]]:
    loaded: dict[str, dict[str, dict[str, object]]] = yaml.safe_load((DEPLOY / file).read_text())
    return loaded


@pytest.mark.parametrize(("file", "served"), [(ALONE, "swell.yaml"), (SEVERAL, "swell.ha.yaml")])
def test_the_spec_that_compose_serves_is_valid_and_fits_it(file: str, served: str) -> None:
    spec = load_spec(DEPLOY / "compose" / served)
    [place] = spec.providers
    assert isinstance(place, ContainerSpec)
    assert compose(file)["networks"]["swell"]["name"] == place.network
    assert compose(file)["volumes"]["models"]["name"] == place.model_cache
    assert set(place.images.values()) == {f"swell-engine-llama.cpp:{VERSION}"}
    assert spec.server.store is not None
    assert spec.server.store.url == "postgresql://swell@postgres:5432/swell?sslmode=disable", "its image has no TLS"


def test_several_servers_share_what_they_must_and_gateways_have_no_more_than_their_own() -> None:
    services, declared = compose(SEVERAL)["services"], set(compose(SEVERAL)["volumes"])
    mounted = {
        name: dict(str(each).split(":")[:2][::-1] for each in service.get("volumes", []))  # type: ignore[attr-defined]
        for name, service in services.items()
    }
    for target in ("/state/secrets", "/state/control", "/models", "/etc/swell/swell.yaml"):
        assert mounted["server-1"][target] == mounted["server-2"][target], target
    assert mounted["server-1"]["/state"] != mounted["server-2"]["/state"]
    require_movable(load_spec(DEPLOY / "compose" / "swell.ha.yaml"), {})
    for number in (1, 2):
        gateway = f"gateway-{number}"
        assert mounted[gateway] == {"/state": f"{gateway}-state", "/credentials": f"{gateway}-credentials"}
        assert mounted[f"credentials-{number}"]["/credentials"] == f"{gateway}-credentials"
        options = [str(word) for word in services[gateway]["command"]]  # type: ignore[attr-defined]
        assert [word for word in options if word.startswith("--server=")] == [
            "--server=server-1:7443",
            "--server=server-2:7443",
        ]
        parsed = gateway_parser().parse_args(options)
        assert parsed.leave_seconds == 10
    named = {source for each in mounted.values() for source in each.values() if source.replace("-", "").isalnum()}
    assert named <= declared


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *((ALONE, name) for name in ("server", "postgres", "prometheus", "grafana")),
        *((SEVERAL, name) for name in ("server-1", "server-2", "gateway-1", "gateway-2", "credentials-1")),
    ],
)
def test_a_service_is_shut_in(file: str, name: str) -> None:
    service = compose(file)["services"][name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", str(service["user"]))
    ports = [str(port) for port in service.get("ports", [])]  # type: ignore[attr-defined]
    assert all(port.startswith(("127.0.0.1:", "${SWELL_ADDRESS:-127.0.0.1}:")) for port in ports)


@pytest.mark.parametrize("file", [ALONE, SEVERAL])
def test_what_is_mounted_or_meant_to_be_kept_secret_is_there_or_ignored(file: str) -> None:
    whole = compose(file)
    mounts = [str(each) for service in whole["services"].values() for each in service.get("volumes", [])]  # type: ignore[attr-defined]
    files = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    assert [file for file in files if not (DEPLOY / file).exists()] == []
    assert len(files) >= 3
    secrets = [str(secret["file"]) for secret in whole["secrets"].values()]
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert all(secret.startswith("./compose/secrets/") for secret in secrets)
    assert "/deploy/compose/secrets/" in ignored


def test_dashboards_ask_for_metrics_that_there_are() -> None:
    dashboard = json.loads((DEPLOY / "compose/grafana/dashboards/swell.json").read_text())
    asked = [
        (family(name), set(re.findall(r"\w+", grouped)) - {"le"})
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for grouped in [*re.findall(r"by \(([^)]*)\)", target["expr"]), ""][:1]
        for name in re.findall(r"\b(?:swell|gen_ai)_[a-z_]+", re.sub(r"by \([^)]*\)", "", target["expr"]))
    ]
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    assert len(asked) > 8
    assert [(name, by) for name, by in asked if name not in labels or not by <= labels[name]] == []
    assert all(panel["title"] and panel["description"] for panel in dashboard["panels"])


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_its_lock_and_ends_as_nobody_without_a_shell(name: str) -> None:
    text = (DEPLOY / "images" / f"{name}.Containerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert last.startswith("scratch\n")
    assert "USER 65532:65532" in last
    assert "RUN" not in last
    assert "HEALTHCHECK" in last
    assert text.index("ARG BASE=") < text.index("FROM ${BASE}")
    lock = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "--hash=sha256:" in lock
    assert "@ " not in lock


def test_the_gateways_image_has_neither_numpy_nor_scipy() -> None:
    lock = (ROOT / "requirements" / "gateway.txt").read_text()
    packages = set(re.findall(r"^([a-z0-9-]+)==", lock, flags=re.MULTILINE))
    assert packages == {"httptools", "msgspec", "uvloop"}
