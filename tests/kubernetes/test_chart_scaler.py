"""The chart where KEDA asks how many replicas a model shall have."""

from pathlib import Path
from typing import Any

import helm_python
import pytest
from chart import Object, objects_of, one, pod_labels, renew, workload
from chart_checks import check_objects, spec_of
from network import Peer, passes

KEDA = renew.value_sets()["keda"]
SEVERAL = renew.value_sets()["high-availability"]
OPERATOR = Peer("keda", {"app": "keda-operator"})
PLAINTEXT: Object = {"external_scaler": {"allow_plaintext_off_loopback": True}}


def asked(scaler: Object | None, more: Object | None = None, **values: Any) -> list[Object]:
    """What the chart makes where spec.server.external_scaler says that."""
    server = {} if scaler is None else {"external_scaler": scaler}
    return objects_of({"spec": {"server": server}, **(more or {}), **values})


def server_of(objects: list[Object]) -> tuple[Peer, Object]:
    owner = workload(objects, "server")
    return Peer(renew.NAMESPACE, pod_labels(owner)), owner["spec"]["template"]["spec"]


@pytest.mark.parametrize("values", [KEDA, {**SEVERAL, "spec": {**SEVERAL.get("spec", {}), "server": PLAINTEXT}}])
def test_keda_reaches_the_port_that_the_server_listens_on_and_nobody_else_does(values: Object) -> None:
    objects = objects_of(values)
    check_objects(objects)
    scaler = spec_of(objects).server.external_scaler
    assert scaler is not None
    assert scaler.host == "0.0.0.0"  # noqa: S104 - of the Pod
    service = one(objects, "Service", "swell-scaler")
    assert service["spec"]["clusterIP"] == "None", "of several servers only the one that leads listens"
    assert [port["port"] for port in service["spec"]["ports"]] == [scaler.port]
    server, pod = server_of(objects)
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports["external-scaler"] == scaler.port
    assert passes(objects, OPERATOR, server, scaler.port)
    assert not passes(objects, Peer("elsewhere", OPERATOR.labels), server, scaler.port)
    assert not passes(objects, Peer(), server, scaler.port)


def test_the_server_shows_what_the_secret_has_and_sees_it_change() -> None:
    objects = objects_of(KEDA)
    scaler = spec_of(objects).server.external_scaler
    assert scaler is not None
    _, pod = server_of(objects)
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "external-scaler"]
    assert "subPath" not in mount, "what is mounted so is never renewed"
    assert {str(Path(file).parent) for file in (scaler.certificate or "", scaler.private_key or "")} == {
        mount["mountPath"]
    }
    (volume,) = [each for each in pod["volumes"] if each["name"] == "external-scaler"]
    assert volume["secret"]["secretName"] == "swell-scaler"


def test_where_nobody_may_ask_there_is_nothing_of_it() -> None:
    objects = asked(None)
    assert [each["metadata"]["name"] for each in objects if each["kind"] == "Service"] == ["swell"]
    server, pod = server_of(objects)
    assert [port["name"] for port in pod["containers"][0]["ports"]] == ["http"]
    assert not passes(objects, OPERATOR, server, 7444)


def test_what_the_spec_says_itself_stays() -> None:
    files = {"certificate": "/own/tls.crt", "private_key": "/own/tls.key", "client_ca": "/own/ca.crt", "port": 9000}
    objects = asked(files)
    scaler = spec_of(objects).server.external_scaler
    assert scaler is not None
    assert scaler.model_dump(exclude={"host", "allow_plaintext_off_loopback"}) == files
    assert one(objects, "Service", "swell-scaler")["spec"]["ports"][0]["port"] == 9000
    anybody = asked(files, externalScaler={"clients": []})
    assert passes(anybody, Peer("elsewhere", {}), server_of(anybody)[0], 9000)


@pytest.mark.parametrize(
    ("scaler", "secret", "words"),
    [
        ({}, "", "name a Secret of type kubernetes.io/tls in externalScaler.secret"),
        ({"host": "127.0.0.1"}, "s", "where KEDA could not reach it"),
        ({"certificate": "/c", "private_key": "/k"}, "s", "keep one of them"),
        (None, "s", "write spec.server.external_scaler: {}"),
    ],
)
def test_what_would_only_be_found_out_in_the_cluster_is_refused(scaler: Object | None, secret: str, words: str) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        asked(scaler, externalScaler={"secret": secret})
    assert words in str(refused.value)
