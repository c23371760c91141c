"""Children and settings as specs can make them, for tests of what is made of them."""

from pathlib import Path

from hypothesis import strategies as st

from swell.adapters.providers.accelerators import Platform, Toleration
from swell.adapters.providers.kubernetes.settings import ClusterSettings, ModelVolume
from swell.ports.engine import EngineMetrics
from swell.ports.provider import OWN_AUTHORITY, ChildSpec, Fetch, Lifecycle, Needs, TlsSidecar

METRICS = EngineMetrics("/metrics", "engine:running", "engine:waiting")
SETTINGS = ClusterSettings("models", "inst-1")

OWN_TLS = TlsSidecar("registry.example/swell-gateway:1", OWN_AUTHORITY)
ISSUED_TLS = TlsSidecar("registry.example/swell-gateway:1", "ClusterIssuer/company-ca")

_words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
_names = st.from_regex(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}(/[A-Za-z0-9][A-Za-z0-9._-]{0,30}){0,3}(:[a-z0-9]{1,20})?", fullmatch=True
)
_dns = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
_variables = st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True)
_seconds = st.floats(0.1, 7 * 24 * 3600)
ACCELERATORS = st.sampled_from([("", 0), ("L4", 1), ("L4", 8), ("H100", 2), ("A100-80GB", 1)])


def child(
    child_id: str = "chat-0.1a2b3c4d",
    workload: str = "chat",
    fingerprint: str = "0123456789abcdef",
    *,
    needs: Needs | None = None,
    lifecycle: Lifecycle | None = None,
    env: dict[str, str] | None = None,
) -> ChildSpec:
    """An engine's child as the fleet describes it."""
    return ChildSpec(
        child_id,
        ("python3", "-m", "engine", "--port=8000"),
        Path("logs") / f"{workload}-0.log",
        {"ENGINE_KEY": "secret-key"} if env is None else env,
        workload=workload,
        fingerprint=fingerprint,
        port=8000,
        needs=needs or Needs(image="registry.example/engine@sha256:" + "0" * 64),
        lifecycle=lifecycle or Lifecycle("/health", METRICS),
    )


@st.composite
def needs(draw: st.DrawFn) -> Needs:
    """What a model may need of its node."""
    accelerator, count = draw(ACCELERATORS)
    fetch = Fetch("registry.example/swell:1", tuple(draw(st.lists(_words, min_size=1, max_size=4))))
    return Needs(
        image=draw(_dns),
        cpus=draw(st.sampled_from([0.0, 0.5, 7.3, 96.0])),
        memory_bytes=draw(st.sampled_from([0, 1, 16 * 2**30])),
        accelerator=accelerator,
        accelerators=count,
        market=draw(st.sampled_from([None, "spot", "on_demand"])),
        zone=draw(st.sampled_from(["", "europe-west4-a"])),
        fetch=draw(st.sampled_from([None, fetch])),
        tls=draw(st.sampled_from([None, OWN_TLS, ISSUED_TLS])),
    )


@st.composite
def children(draw: st.DrawFn) -> ChildSpec:
    """Any child that the fleet could ask for."""
    workload = draw(_names)
    metrics = draw(st.sampled_from([METRICS, EngineMetrics()]))
    return ChildSpec(
        f"{workload}-{draw(st.integers(0, 999))}.{draw(st.from_regex(r'[0-9a-f]{8}', fullmatch=True))}",
        tuple(draw(st.lists(_words, min_size=1, max_size=8))),
        Path("logs") / "chat-0.log",
        draw(st.dictionaries(_variables, _words, max_size=4)),
        workload=workload,
        fingerprint=draw(st.from_regex(r"[0-9a-f]{16}", fullmatch=True)),
        port=draw(st.sampled_from([0, 8000])),
        needs=draw(needs()),
        lifecycle=Lifecycle(
            draw(st.sampled_from(["", "/health"])), metrics, draw(_seconds), draw(_seconds), draw(_seconds)
        ),
    )


@st.composite
def cluster_settings(draw: st.DrawFn) -> ClusterSettings:
    """Any way in which an installation can describe its cluster."""
    return ClusterSettings(
        namespace=draw(_dns),
        installation=draw(_dns),
        platform=draw(st.sampled_from(list(Platform))),
        models=draw(
            st.sampled_from([ModelVolume(), ModelVolume(claim="models"), ModelVolume(host_path="/var/models")])
        ),
        priority_class=draw(st.sampled_from(["", "serving"])),
        runtime_class=draw(st.sampled_from(["", "nvidia"])),
        token_secret=draw(st.sampled_from(["", "hub-token"])),
        image_pull_secrets=draw(st.sampled_from([(), ("registry",)])),
        node_selector=draw(st.sampled_from([{}, {"pool": "gpu"}])),
        tolerations=draw(st.sampled_from([(), (Toleration("sku", "gpu"), Toleration("team"))])),
    )
