"""The chart with gateways as Pods of their own, and with several servers."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import helm_python
import pytest
from chart import Object, component_of, objects_of, one, pod_labels, renew, workload, workloads
from chart_checks import check_objects, spec_of
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_children import SETTINGS, child
from network import Peer, passes
from test_chart_values import names, namespaces, releases, value_sets

from swell.adapters.providers.kubernetes import manifests
from swell.adapters.providers.kubernetes.manifests import NOTHING
from swell.adapters.providers.kubernetes.provider import EVERYWHERE, PORT
from swell.security.control_tls import SERVER_NAME
from swell.server import gateway_host
from swell.server.admin import AdminServer, waiting_application
from swell.server.draining import END_MARGIN_SECONDS
from swell.server.gateway_arguments import CA, CERTIFICATE, PRIVATE_KEY, gateway_parser, gateway_wishes
from swell.server.gateway_host import GatewayWishes
from swell.server.several import require_movable
from swell.server.store_choice import URL_FILE_VARIABLE

VALUES = renew.value_sets()
SEVERAL = ["several", "high-availability"]
APART = ["gateways", *SEVERAL]
PATIENCE_SECONDS = 10.0
BOTH: Object = {"serverSecret": "a", "gatewaySecret": "b"}
POSTGRES: Object = {"storeUrl": {"name": "database"}, "pepper": {"name": "pepper"}}
GATEWAYS: Object = {"gateways": {"enabled": True}, "control": BOTH}
SERVERS: Object = {**GATEWAYS, "highAvailability": {"enabled": True}, "secrets": POSTGRES}


def container(owner: Object) -> Object:
    """What it is all about."""
    found: Object = owner["spec"]["template"]["spec"]["containers"][0]
    return found


def mounted(owner: Object) -> dict[str, str]:
    """Names of Secrets, by where they are."""
    volumes = {
        each["name"]: each["secret"] for each in owner["spec"]["template"]["spec"]["volumes"] if "secret" in each
    }
    mounts = {each["name"]: each["mountPath"] for each in container(owner)["volumeMounts"]}
    return {mounts[name]: secret["secretName"] for name, secret in volumes.items()}


def told(objects: list[Object], folder: Path) -> GatewayWishes:
    """What a gateway's Pod tells its program, with credentials that are there."""
    words = container(workload(objects, "gateway"))["args"]
    wishes = vars(gateway_parser().parse_args([word.replace("$(POD_NAME)", "swell-gateway-0") for word in words]))
    assert wishes["credentials"] == Path("/credentials")
    for name in (CA, CERTIFICATE, PRIVATE_KEY):
        (folder / name).touch()
    return gateway_wishes(**wishes | {"credentials": folder})


@pytest.mark.parametrize("name", APART)
def test_a_gateway_takes_its_command_line(name: str, tmp_path: Path) -> None:
    objects = objects_of(VALUES[name])
    owner, spec = workload(objects, "gateway"), spec_of(objects)
    assert container(owner)["command"] == ["python3", "-m", "swell.server.gateway_arguments"]
    wishes = told(objects, tmp_path)
    service = one(objects, "Service", "swell-control")
    assert spec.server.gateways is not None
    assert wishes.control.addresses == ((service["metadata"]["name"], spec.server.gateways.port),)
    assert [port["port"] for port in service["spec"]["ports"]] == [spec.server.gateways.port]
    assert (wishes.host, wishes.port) == (EVERYWHERE, spec.server.port)
    assert [port["containerPort"] for port in container(owner)["ports"]] == [wishes.port]
    assert wishes.name == "swell-gateway-0"
    assert {"name": "state", "mountPath": str(wishes.state.parent)} in container(owner)["volumeMounts"]
    assert owner["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "state"
    assert bool(wishes.certificate_file) == (spec.server.tls is not None)
    if spec.server.tls is not None:
        assert mounted(owner)[str(Path(wishes.certificate_file).parent)] == "swell-tls"
        assert Path(wishes.private_key_file) == Path(wishes.certificate_file).with_name("tls.key")


def test_what_the_values_say_of_a_gateway_is_what_it_is_told(tmp_path: Path) -> None:
    wishes = told(objects_of(VALUES["several"]), tmp_path)
    assert (wishes.workers, wishes.leave_seconds) == (4, 12.5)
    claim = workload(objects_of(VALUES["several"]), "gateway")["spec"]["volumeClaimTemplates"][0]["spec"]
    assert claim["resources"]["requests"] == {"storage": "4Gi"}
    passing = objects_of({**GATEWAYS, "gateways": {"enabled": True, "state": {"ephemeral": True}}})
    assert "volumeClaimTemplates" not in workload(passing, "gateway")["spec"]


@pytest.mark.parametrize("name", APART)
def test_the_server_listens_to_gateways_alone_and_both_show_what_they_have(name: str) -> None:
    objects = objects_of(VALUES[name])
    spec, server = spec_of(objects).server, workload(objects, "server")
    assert spec.workers == 0
    assert spec.gateways is not None
    assert spec.gateways.host == EVERYWHERE
    assert [(port["name"], port["containerPort"]) for port in container(server)["ports"]] == [
        ("control", spec.gateways.port)
    ]
    folder = Path(spec.gateways.ca or "").parent
    files = [spec.gateways.ca, spec.gateways.certificate, spec.gateways.private_key]
    assert files == [str(folder / file) for file in (CA, CERTIFICATE, PRIVATE_KEY)]
    assert mounted(server)[str(folder)] == "swell-control-server"
    assert mounted(workload(objects, "gateway"))["/credentials"] == "swell-control-gateway"


def test_a_spec_that_says_it_otherwise_is_taken_at_its_word() -> None:
    files = {"ca": "/mine/ca", "certificate": "/mine/crt", "private_key": "/mine/key"}
    own = {"host": "::", "port": 9000, **files}
    objects = objects_of(
        {"gateways": {"enabled": True}, "control": {"gatewaySecret": "b"}, "spec": {"server": {"gateways": own}}}
    )
    gateways = spec_of(objects).server.gateways
    assert gateways is not None
    assert gateways.model_dump() == own
    assert "/secrets/control" not in mounted(workload(objects, "server"))
    assert "swell-control:9000" in container(workload(objects, "gateway"))["args"]


@pytest.mark.parametrize("name", APART)
def test_clients_come_to_gateways_and_gateways_to_every_server(name: str) -> None:
    objects = objects_of(VALUES[name])
    server, gateway = (pod_labels(workload(objects, each)) for each in ("server", "gateway"))
    front, control = one(objects, "Service", "swell"), one(objects, "Service", "swell-control")
    assert front["spec"]["selector"].items() <= gateway.items()
    assert not front["spec"]["selector"].items() <= server.items()
    assert control["spec"]["selector"].items() <= server.items()
    assert not control["spec"]["selector"].items() <= gateway.items()
    assert (control["spec"]["clusterIP"], control["spec"]["publishNotReadyAddresses"]) == ("None", True)
    for monitor in (each for each in objects if each["kind"] == "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert wanted <= front["metadata"]["labels"].items()
        assert not wanted <= control["metadata"]["labels"].items()


@pytest.mark.parametrize("name", APART)
def test_the_network_lets_through_what_is_needed_and_nothing_else(name: str) -> None:
    objects = objects_of(VALUES[name])
    spec = spec_of(objects).server
    assert spec.gateways is not None
    server, gateway = (Peer("serving", pod_labels(workload(objects, each))) for each in ("server", "gateway"))
    pods = manifests.deployment(child(), SETTINGS, NOTHING)["spec"]["template"]["metadata"]["labels"]
    replica, stranger = Peer("serving", pods), Peer("serving", {"app": "another"})
    client, outside = Peer("ingress"), Peer()
    control = spec.gateways.port

    for source, target, port in (
        (client, gateway, spec.port),
        (gateway, server, control),
        (gateway, replica, PORT),
        (server, replica, PORT),
        (server, outside, 6443),
    ):
        assert passes(objects, source, target, port), (source, target, port)
    for source, target, port in (
        (stranger, server, control),
        (client, server, control),
        (replica, server, control),
        (outside, server, control),
        (Peer("elsewhere", gateway.labels), server, control),
        (server, server, control),
        (client, server, spec.port),
        (gateway, server, spec.port),
        (stranger, replica, PORT),
        (gateway, outside, 5432),
        (gateway, outside, 6443),
        (gateway, stranger, spec.port + 1),
    ):
        assert not passes(objects, source, target, port), (source, target, port)
    assert passes(objects, gateway, outside, 443) == (name == "several")  # an endpoint that others run


def test_several_servers_are_a_deployment_that_can_be_led_by_each() -> None:
    for name in SEVERAL:
        objects = objects_of(VALUES[name])
        check_objects(objects)
        owner = workload(objects, "server")
        assert owner["kind"] == "Deployment"
        assert owner["spec"]["replicas"] == VALUES[name]["highAvailability"]["servers"]
        assert owner["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 1}
        assert container(owner)["args"][:2] == ["up", "--ha"]
        pod = owner["spec"]["template"]["spec"]
        assert {"name": "state", "emptyDir": {}} in pod["volumes"]
        (spread,) = pod["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["labelSelector"]["matchLabels"].items() <= pod_labels(owner).items()
        assert one(objects, "PodDisruptionBudget", "swell")["spec"]["maxUnavailable"] == 1
        assert pod["terminationGracePeriodSeconds"] >= 3 * END_MARGIN_SECONDS
        environment = {each["name"]: each.get("value", "") for each in container(owner)["env"]}
        require_movable(spec_of(objects), environment)
        assert environment[URL_FILE_VARIABLE]
    alone = objects_of(VALUES["gateways"])
    assert workload(alone, "server")["kind"] == "StatefulSet"
    assert "--ha" not in container(workload(alone, "server"))["args"]
    assert one(alone, "PodDisruptionBudget", "swell")["spec"]["maxUnavailable"] == 0


def test_rights_are_those_of_one_server() -> None:
    def rules(values: Object) -> list[Object]:
        return [each for each in objects_of(values) if each["kind"] in ("Role", "ClusterRole")]

    assert rules(VALUES["gateways"]) == rules({})
    granted = [each["rules"] for each in rules(VALUES["high-availability"]) if each["metadata"]["name"] == "swell"]
    assert granted == [each["rules"] for each in rules({}) if each["metadata"]["name"] == "swell"]
    gateway = workload(objects_of(VALUES["several"]), "gateway")["spec"]["template"]["spec"]
    assert gateway["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in gateway


def test_before_an_uninstall_a_last_server_ends_what_several_have_run() -> None:
    objects = objects_of(VALUES["several"])
    server, last = container(workload(objects, "server")), container(workload(objects, "let-go"))
    python, flag, program = last["command"]
    assert (python, flag) == ("python3", "-c")
    assert program == (renew.CHART / "files" / "end_servers.py").read_text().strip()
    namespace, name, seconds, *arguments = last["args"]
    assert (namespace, name, arguments) == ("serving", workload(objects, "server")["metadata"]["name"], server["args"])
    drains = [model.drain_seconds for model in spec_of(objects).models]
    assert float(seconds) > max(drains) + 3 * END_MARGIN_SECONDS
    assert workload(objects, "let-go")["spec"]["activeDeadlineSeconds"] > float(seconds)
    for each in ("env", "image", "resources", "securityContext", "volumeMounts"):
        assert last[each] == server[each], each
    assert not {"ports", "livenessProbe", "readinessProbe", "startupProbe"} & last.keys()
    pod = workload(objects, "let-go")["spec"]["template"]["spec"]
    assert (pod["restartPolicy"], pod["serviceAccountName"], pod["automountServiceAccountToken"]) == (
        "Never", "swell", True,
    )  # fmt: skip
    (rule,) = one(objects, "Role", "swell-let-go")["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["deployments/scale"], ["swell"], ["patch"])
    (subject,) = one(objects, "RoleBinding", "swell-let-go")["subjects"]
    assert subject["name"] == pod["serviceAccountName"]


def test_cert_manager_is_asked_for_both_sides_of_one_authority() -> None:
    objects = objects_of(VALUES["several"])
    made = {each["spec"]["secretName"]: each["spec"] for each in objects if each["kind"] == "Certificate"}
    server, gateway = made["swell-control-server"], made["swell-control-gateway"]
    assert (server["dnsNames"], "server auth" in server["usages"]) == ([SERVER_NAME], True)
    assert SERVER_NAME not in (*gateway["dnsNames"], gateway["commonName"])
    assert gateway["usages"] == ["digital signature", "client auth"]
    assert server["issuerRef"] == gateway["issuerRef"]
    assert not [each for each in objects_of(VALUES["gateways"]) if each["kind"] == "Certificate"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gateways": {"enabled": True}}, "control.serverSecret (swell credentials FOLDER --server"),
        ({"gateways": {"enabled": True}, "control": {"serverSecret": "a"}}, "control.gatewaySecret"),
        ({**GATEWAYS, "control": {"serverSecret": "a", "gatewaySecret": "a"}}, "give two Secrets"),
        ({**GATEWAYS, "spec": {"server": {"workers": 2}}}, "say gateways.workers"),
        ({"spec": {"server": {"workers": 0, "gateways": {}}}}, "set gateways.enabled: true"),
        ({**GATEWAYS, "spec": {"server": {"gateways": {"host": "127.0.0.1"}}}}, "write 0.0.0.0"),
        ({**GATEWAYS, "spec": {"server": {"gateways": {"ca": "/c"}}}}, "keep one of them"),
        ({**GATEWAYS, "spec": {"server": {"tls": {"local_ca": True}}}}, "name a Secret of type kubernetes.io/tls"),
        (
            {**GATEWAYS, "spec": {"server": {"tls": {"local_ca": True}}}, "secrets": {"tls": "t"}},
            "gateways do not have",
        ),
        ({**SERVERS, "gateways": {"enabled": False}}, "set gateways.enabled: true"),
        ({**SERVERS, "secrets": {"pepper": {"name": "p"}}}, "secrets.storeUrl.name"),
        ({**SERVERS, "secrets": {"storeUrl": {"name": "p"}}}, "secrets.pepper.name"),
        ({**SERVERS, "state": {"existingClaim": "mine"}}, "leave it out"),
        ({**SERVERS, "spec": {"providers": [{"name": "here"}]}}, "smollm2 is on here"),
        ({**SERVERS, "highAvailability": {"enabled": True, "servers": 1}}, "servers"),
        ({"gateways": {"leaveSeconds": 601}}, "leaveSeconds"),
    ],
)
def test_what_contradicts_itself_is_refused_with_what_to_do(values: Object, words: str) -> None:
    with pytest.raises(helm_python.HelmError) as error:
        renew.render(values)
    assert words in str(error.value)


def test_a_changed_spec_moves_the_server_and_no_gateway() -> None:
    def templates(values: Object) -> dict[str, Object]:
        return {component_of(each): each["spec"]["template"] for each in workloads(objects_of({**GATEWAYS, **values}))}

    before, after = templates({}), templates({"spec": {"server": {"timeouts": {"connect_seconds": 3}}}})
    assert before["server"] != after["server"]
    assert before["gateway"] == after["gateway"]


drains = st.one_of(st.none(), st.floats(1, 3600).map(lambda seconds: round(seconds, 1)), st.integers(1, 3600))


@settings(max_examples=30)
@given(drains, st.integers(0, 600) | st.floats(0, 600).map(lambda seconds: round(seconds, 1)))
def test_a_gateway_has_the_time_that_it_takes_to_end(drain: Any, leave: float) -> None:
    timeouts = {} if drain is None else {"drain_seconds": drain}
    values = {"gateways": {"enabled": True, "leaveSeconds": leave}, "spec": {"server": {"timeouts": timeouts}}}
    objects = objects_of({**GATEWAYS, **values})
    given_seconds = workload(objects, "gateway")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    drained = spec_of(objects).server.timeouts.drain_seconds + gateway_host.STOP_MARGIN_SECONDS
    assert given_seconds >= leave + drained + gateway_host.LAST_USAGE_SECONDS + 5


@st.composite
def apart(draw: st.DrawFn) -> Object:
    """Right values with gateways, and sometimes with several servers."""
    values = draw(value_sets())
    del values["spec"]["server"]["workers"]
    if draw(st.booleans()):
        values["spec"]["server"]["gateways"] = {"port": draw(st.integers(1, 65535))}
    issuer = {"certManager": {"issuer": {"name": draw(names)}}}
    values["control"] = draw(st.sampled_from([BOTH, issuer, {**issuer, "serverSecret": "mine"}]))
    values["gateways"] = {
        "enabled": True,
        "replicas": draw(st.integers(1, 9)),
        "workers": draw(st.integers(1, 256)),
        "leaveSeconds": draw(st.integers(0, 600)),
        "state": draw(st.sampled_from([{}, {"ephemeral": True}, {"storageClass": "1"}])),
        "disruptionBudget": {"enabled": draw(st.booleans())},
    }
    if draw(st.booleans()):
        values["highAvailability"] = {"enabled": True, "servers": draw(st.integers(2, 16))}
        values["state"] = {}
        values["secrets"] |= POSTGRES
    return values


@settings(max_examples=30)
@given(apart(), releases, namespaces)
def test_values_that_are_right_make_objects_that_are(values: Object, release: str, namespace: str) -> None:
    objects = objects_of(values, release, namespace)
    check_objects(objects)
    spec = spec_of(objects).server
    assert (spec.workers, spec.port) == (0, values["spec"]["server"]["port"])
    assert {component_of(each) for each in workloads(objects)} >= {"server", "gateway"}
    for item in objects:
        assert len(item["metadata"]["name"]) <= 63 or item["kind"].startswith("ClusterRole")


async def asked(socket: Path, seconds: float = PATIENCE_SECONDS) -> tuple[int | None, str]:
    """How the probe of a rendered Pod ends at that socket, and what it says."""
    probes = container(workload(objects_of(VALUES["high-availability"]), "server"))
    python, flags, option, program, path, patience = probes["readinessProbe"]["exec"]["command"]
    assert (python, flags, option, path) == ("python3", "-SI", "-c", "/state/swell/admin.sock")
    assert float(patience) < probes["readinessProbe"]["timeoutSeconds"]
    asking = await asyncio.create_subprocess_exec(
        sys.executable, flags, option, program, str(socket), str(seconds), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(3 * PATIENCE_SECONDS):
        _, said = await asking.communicate()
    return asking.returncode, said.decode()


class NoticedServer(AdminServer):
    """Says when it listens."""

    def __init__(self, socket: Path) -> None:
        super().__init__(waiting_application(lambda: {"waiting": True}, lambda: None), socket)
        self.listens = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def answering(socket: Path) -> AsyncIterator[None]:
    """A server that waits."""
    admin = NoticedServer(socket)
    task = asyncio.ensure_future(admin.run_on_socket())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await admin.listens.wait()
        yield
    finally:
        admin.should_exit = True
        await task


async def test_a_server_that_waits_is_ready(tmp_path: Path) -> None:
    async with answering(tmp_path / "admin.sock"):
        assert await asked(tmp_path / "admin.sock") == (0, "")


@pytest.mark.parametrize("says", [None, b"", b"HTTP/1.1 500 Internal Server Error\r\n\r\n", b"anything"])
async def test_a_server_that_hangs_or_fails_is_not(tmp_path: Path, says: bytes | None) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if says is not None:
            writer.write(says)
            writer.close()
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "admin.sock"):
        code, said = await asked(tmp_path / "admin.sock", seconds=0.2)
    assert code == 1
    assert str(tmp_path / "admin.sock") in said


async def test_a_server_that_is_not_there_is_not_ready(tmp_path: Path) -> None:
    code, said = await asked(tmp_path / "admin.sock")
    assert code == 1
    assert "No such file" in said
