"""The chart for values of any kind: right ones make right objects, and what a spec says comes out as it is."""

import yaml
from chart import Object, objects_of, one
from chart_checks import CLUSTER_WIDE, check_objects, spec_of
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.adapters.providers.kubernetes.provider import EVERYWHERE

names = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True) | st.sampled_from(["on", "y", "null", "true"])
releases = st.from_regex(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?", fullmatch=True) | st.sampled_from(["no", "a.b", "swell"])
namespaces = names | st.sampled_from(["123", "1e3", "0x1f", "a" * 63])
texts = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}", fullmatch=True), st.text(st.characters(codec="ascii"), max_size=9)
)
whole = st.dictionaries(names, st.sampled_from(["on", "1", "1e3", "null", "x", ""]), max_size=2)
secret = st.fixed_dictionaries({"name": st.just("") | names})


@st.composite
def value_sets(draw: st.DrawFn) -> Object:
    """Values that are right."""
    has_tls = draw(st.booleans())
    claim = draw(names)
    server: Object = {"port": draw(st.integers(1, 65535)), "workers": draw(st.integers(1, 256))}
    if has_tls:
        server["tls"] = {"certificate": "/secrets/tls/tls.crt", "private_key": "/private/tls.key"}
    place = {"name": "p", "kind": "kubernetes", "images": {"llama.cpp": "a:1"}, "model_cache": {"claim": claim}}
    where = draw(st.lists(st.none() | namespaces, min_size=1, max_size=3, unique=True))
    places = [{**place, "name": f"p{i}", **({"namespace": name} if name else {})} for i, name in enumerate(where)]
    spec = {"server": server, "providers": places, "models": [{"name": "m", "source": "hf://a/b.gguf"}]}
    return {
        "spec": spec,
        "fullnameOverride": draw(st.just("") | names),
        "nameOverride": draw(st.just("") | names),
        "image": {"pullSecrets": draw(st.lists(names, max_size=2)), "tag": draw(st.sampled_from(["", "1", "1e3"]))},
        "state": draw(st.sampled_from([{}, {"ephemeral": True}, {"existingClaim": "1"}, {"storageClass": "1"}])),
        "secrets": {
            "tls": draw(names) if has_tls else "",
            **{key: draw(secret) for key in ("storeUrl", "pepper", "storeKey")},
        },
        "service": {
            "type": draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"])),
            "port": draw(st.integers(1, 65535)),
            "tlsAtLoadBalancer": True,
            "annotations": draw(texts),
            "externalTrafficPolicy": draw(st.sampled_from(["", "Local"])),
        },
        "ingress": {"enabled": draw(st.booleans()), "hosts": draw(st.lists(names, max_size=2))},
        "httpRoute": {"enabled": draw(st.booleans()), "parentRefs": [{"name": draw(names)}]},
        "serviceAccount": {"create": draw(st.booleans()), "name": draw(st.just("") | names)},
        "rbac": {"create": draw(st.booleans()), "nodes": draw(st.booleans())},
        "networkPolicy": {"enabled": draw(st.booleans())},
        "disruptionBudget": {"enabled": draw(st.booleans()), "maxUnavailable": draw(st.integers(0, 1))},
        "podLabels": draw(whole),
        "podAnnotations": draw(texts),
        "nodeSelector": draw(whole),
        "modelCache": {"create": draw(st.booleans()), "claim": claim},
        "serviceMonitor": {"enabled": draw(st.booleans()), "key": {"name": draw(names)}},
        "terminationGracePeriodSeconds": draw(st.none() | st.integers(1, 10**6)),
    }  # fmt: skip


@settings(max_examples=30)
@given(value_sets(), releases, namespaces)
def test_values_that_are_right_make_objects_that_are(values: Object, release: str, namespace: str) -> None:
    objects = objects_of(values, release, namespace)
    check_objects(objects)
    spec = yaml.safe_load(one(objects, "ConfigMap")["data"]["swell.yaml"])
    assert spec == {**values["spec"], "server": {**spec["server"], **values["spec"]["server"]}}
    assert spec_of(objects).server.host == EVERYWHERE
    for item in objects:
        assert item["kind"] in CLUSTER_WIDE or item["metadata"]["namespace"]
        assert len(item["metadata"]["name"]) <= 63 or item["kind"].startswith("ClusterRole")


words = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=30
) | st.sampled_from(
    [
        "yes",
        "1e3",
        "0x1f",
        "null",
        "~",
        "12:30:00",
        "- a",
        "a: b",
        "#",
        "{{ .Values }}",
        " ",
        "*a",
        "&b",
        "!c",
        "%d",
        "'",
    ]
)


@settings(max_examples=50)
@given(st.lists(words, max_size=4), st.integers(1, 2**40) | st.floats(0.001, 1e9))
def test_what_a_spec_says_comes_out_as_it_is(arguments: list[str], usd: float) -> None:
    """Wherever a spec has words and numbers of the user's own."""
    model = {"name": "m", "source": "hf://a/b.gguf", "engine_args": arguments, "usd_per_replica_hour": usd}
    text = one(objects_of({"spec": {"models": [model]}}), "ConfigMap")["data"]["swell.yaml"]
    assert yaml.safe_load(text)["models"] == [model]
