"""Swell's own images: small, without what an intruder could use, with their bill, and quick to start."""

import http.client
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from base_image import ROOT
from container_harness import ContainerHarness

from swell.ports.provider import Needs, Presence
from swell.testing.docker_daemon import DockerDaemon

pytestmark = [pytest.mark.services, pytest.mark.containers, pytest.mark.timeout(1800)]

MB = 1_000_000
MAX_BYTES = {"gateway": 100 * MB, "server": 250 * MB, "engine-llama.cpp": 250 * MB}  # compressed
START_SECONDS = 2.0
STARTS = int(os.environ.get("SWELL_IMAGE_STARTS", "1"))  # of each image, measured one after another
SLOW_MACHINE = 3.0  # times: the tests share the machine; docs/benchmarks.md has figures of a quiet one
_SPEC = """
models: [{name: theirs, endpoints: ['http://127.0.0.1:9']}]
server: {host: 0.0.0.0, allow_plaintext_off_loopback: true}
"""
_LOOK = """
import importlib.util, json, os, pathlib, ssl, sys
found = {
    "user": os.getuid(),
    "shells": [path for path in ("/bin/sh", "/bin/bash", "/usr/bin/env", "/usr/bin/apt", "/usr/bin/perl", "/bin/ls")
               if os.path.exists(path)],
    "programs": sorted(path.name for folder in os.get_exec_path() for path in pathlib.Path(folder).glob("*")),
    "modules": [name for name in ("numpy", "scipy", "pydantic", "sqlalchemy", "xllamacpp", "pip", "setuptools")
                if importlib.util.find_spec(name)],
    "bills": [json.loads(path.read_text()) for path in pathlib.Path("/usr/share/sbom").iterdir()],
    "certificates": len(ssl.create_default_context().get_ca_certs()),
}
print(json.dumps(found), flush=True)
"""
_MODULES = {
    "gateway": set(),
    "server": {"numpy", "scipy", "pydantic", "sqlalchemy"},
    "engine-llama.cpp": {"xllamacpp"},
}


def compressed_bytes(docker: DockerDaemon, image: str) -> int:
    """Of the image as a registry would hold it."""
    packing, size = zlib.compressobj(6, wbits=31), 0
    with (
        httpx.Client(transport=httpx.HTTPTransport(uds=str(docker.socket)), base_url="http://daemon") as client,
        client.stream("GET", f"/images/{image}/get", timeout=300) as answer,
    ):
        for piece in answer.iter_raw():
            size += len(packing.compress(piece))
    return size + len(packing.flush())


@pytest.mark.parametrize("name", list(MAX_BYTES))
async def test_an_image_holds_what_it_needs_and_no_more(
    name: str, containers: ContainerHarness, build_image: Callable[[str], str], record_property: Callable[..., None]
) -> None:
    image = build_image(name)
    size = compressed_bytes(containers.docker, image)
    record_property("compressed_bytes", size)
    print(f"{name}: {size / MB:.1f} MB compressed")
    assert MB < size < MAX_BYTES[name]
    provider = containers.provider()
    handle = await provider.start(containers.python(_LOOK, needs=Needs(image)))
    await containers.until(lambda: provider.status(handle).presence is Presence.GONE)
    found = json.loads(handle.log_path.read_text().splitlines()[1])
    assert (found["user"], found["shells"]) == (65532, [])
    assert {program for program in found["programs"] if "ctivate" in program} == set()
    assert set(found["modules"]) == _MODULES[name]
    assert found["certificates"] > 50
    [bill] = found["bills"]
    assert bill["bomFormat"] == "CycloneDX"
    listed = {component["purl"].partition("?")[0].partition("@")[0] for component in bill["components"]}
    lock = (ROOT / "requirements" / f"{name}.txt").read_text()
    locked = {line.partition("==")[0].partition("[")[0] for line in lock.splitlines() if "==" in line}
    assert {f"pkg:pypi/{package}" for package in locked} <= listed
    assert {"pkg:deb/debian/libc6", "pkg:deb/debian/libssl3"} <= listed
    labels = containers.docker.ask("GET", f"/images/{image}/json")["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == image.rpartition(":")[2]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


async def test_a_gateway_starts_at_once_and_without_credentials_says_what_it_lacks(
    docker: DockerDaemon, containers: ContainerHarness, build_image: Callable[[str], str]
) -> None:
    image = build_image("gateway")
    entry = tuple(docker.ask("GET", f"/images/{image}/json")["Config"]["Entrypoint"])
    provider = containers.provider()
    for _ in range(STARTS):
        begun = time.monotonic()
        child = containers.python("", needs=Needs(image))
        handle = await provider.start(replace(child, argv=(*entry, "--server", "server:7443")))
        await containers.until(lambda handle=handle: provider.status(handle).presence is Presence.GONE)
        taken = time.monotonic() - begun
        print(f"gateway: made, started and ended in {taken:.2f} s")
        assert taken < START_SECONDS * SLOW_MACHINE
        assert provider.status(handle).exit_code == 2
        assert "--credentials" in await provider.log_tail(handle.log_path)


@pytest.mark.parametrize("start", range(STARTS))
async def test_a_server_starts_as_nobody_on_a_read_only_disk(
    start: int, docker: DockerDaemon, containers: ContainerHarness, build_image: Callable[[str], str]
) -> None:
    image = build_image("server")
    with tempfile.NamedTemporaryFile("w", prefix="swell-image-", suffix=".yaml") as spec:
        spec.write(_SPEC)
        spec.flush()
        os.chmod(spec.name, 0o644)  # noqa: PTH101
        host = {
            "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "Tmpfs": {"/tmp": ""},  # noqa: S108
            "Mounts": [{"Type": "bind", "Source": spec.name, "Target": "/etc/swell/swell.yaml", "ReadOnly": True}],
        }  # fmt: skip
        quick = {"Test": ["NONE"]}
        body = {"Image": image, "HostConfig": host, "Labels": containers.labels, "Healthcheck": quick}
        name = f"swell-test-{containers.installation}"
        docker.ask("POST", "/containers/create", params={"name": name}, json=body)
        begun = time.monotonic()
        docker.ask("POST", f"/containers/{name}/start")

        def answers() -> bool:
            seen = docker.ask("GET", f"/containers/{name}/json")
            connection = http.client.HTTPConnection(seen["NetworkSettings"]["IPAddress"], 8080, timeout=2)
            try:
                connection.request("GET", "/healthz")
                return connection.getresponse().status == 200
            except OSError:
                return False
            finally:
                connection.close()

        try:
            await containers.until(answers)
            taken = time.monotonic() - begun
            print(f"server: answers after {taken:.2f} s (start {start})")
            assert taken < START_SECONDS * SLOW_MACHINE
            docker.ask("POST", f"/containers/{name}/kill", params={"signal": "SIGTERM"})
            await containers.until(lambda: not docker.runs(name))
            assert docker.ask("GET", f"/containers/{name}/json")["State"]["ExitCode"] == 0
        finally:
            docker.ask("DELETE", f"/containers/{name}", params={"force": "1", "v": "1"})
