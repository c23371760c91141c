"""What a place of kind kubernetes means for a model's replicas: what they need, and how they come by the model.

vLLM fetches what is on the Hugging Face Hub by itself, into the Pods' cache. Everything else, and whatever must have a
certain SHA-256, is fetched before the engine begins, by Swell's own code in a container of its own (`fetch_image`).
Where the place says so, both are fetched ahead, into a cache that all Pods share: by the same command, or, for vLLM,
into the Hub's own cache, where its library looks first.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from swell.errors import UserError
from swell.ports.provider import OWN_AUTHORITY, Fetch, Needs, TlsSidecar
from swell.spec import Engine, KubernetesSpec, ModelSpec
from swell.state.accelerators import asked_for, slice_problem

MODELS = "/models"  # the cache, inside a Pod
PYTHON = "python3"  # of images with Swell in them
FETCH_MODULE = "swell.adapters.sources.fetch"
SPANNING_VLLM = (0, 12)  # the first release that joins nodes by itself (`--nnodes`)
_RELEASE = re.compile(r":v?(\d+)\.(\d+)\.\d+[^/]*$")  # of a tag; others may be anything
DOWNLOAD_FOLDER = ("--download-dir", "--download_dir")  # of vLLM: another cache than the usual one
# What vLLM reads of a repository: safetensors, configuration, tokenizer, and code where it was told to trust it. Its
# image has the Hub's library and no Swell; failures are told in a line, as by Swell's own fetching.
HUB_SCRIPT = """
import sys
from huggingface_hub import snapshot_download
try:
    found = snapshot_download(sys.argv[1], revision=sys.argv[2] or None, allow_patterns=sys.argv[3:])
except Exception as error:
    reason = (str(error).strip().splitlines() or [""])[0]
    sys.exit(f"hf://{sys.argv[1]} cannot be fetched: {type(error).__name__}: {reason}")
print(f"hf://{sys.argv[1]} is in {found}")
"""
HUB_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
_HUB = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?", re.ASCII)


@dataclass(frozen=True)
class ClusterModel:
    """A model as its Pods see it."""

    spec: ModelSpec
    path: Path
    needs: Needs


def cluster_model(model: ModelSpec, place: KubernetesSpec) -> ClusterModel:
    """A model in Pods of `place`. Raises UserError for files that no Pod can have."""
    for adapter in model.lora:
        _require_inside(model, adapter.path)
    source, fetch, ahead = model.source or "", None, None
    hub = _HUB.fullmatch(source)
    if model.engine is Engine.VLLM and hub is not None and model.sha256 is None:
        path, ahead = Path(hub["repository"]), _hub_fetch(model, place, hub["repository"], hub["revision"] or "")
        if hub["revision"]:
            model = model.model_copy(update={"engine_args": (*model.engine_args, f"--revision={hub['revision']}")})
    elif "://" not in source or source.startswith("file://"):
        path = _require_inside(model, source.removeprefix("file://"))
    else:
        path, fetch = _fetched(model, place)
        ahead = fetch
    count, accelerator = _accelerator(model)
    if model.nodes > 1:
        _require_spanning(model, place)
    needs = Needs(
        image=place.images[model.engine.value],
        cpus=place.cpus or 0.0,
        memory_bytes=place.memory or 0,
        accelerator=accelerator,
        accelerators=count,
        market=place.market,
        zone=place.zone or "",
        fetch=fetch,
        tls=_sidecar(place),
        nodes=model.nodes,
        fetch_ahead=ahead if place.prefetch is not None and place.prefetch.models else None,
    )
    return ClusterModel(model, path, needs)


def authority_of(place: KubernetesSpec) -> str:
    """Whose certificates replicas and gateways show each other; empty: none."""
    if place.tls is None:
        return ""
    issuer = place.tls.issuer
    return OWN_AUTHORITY if issuer is None else f"{issuer.kind}/{issuer.name}"


def _sidecar(place: KubernetesSpec) -> TlsSidecar | None:
    return None if place.tls is None else TlsSidecar(place.tls.image, authority_of(place))


def _require_spanning(model: ModelSpec, place: KubernetesSpec) -> None:
    """Raises UserError where nodes of this place, or vLLM in this image, cannot be one replica."""
    asked, where = asked_for(model.accelerators[0]), f"model {model.name} over {model.nodes} nodes"
    if asked.mig or asked.is_shared:
        raise UserError(f"{where}: parts of {asked.accelerator.name} do not span nodes; take whole ones")
    if problem := slice_problem(asked, model.nodes):
        raise UserError(f"{where}: {problem}")
    image = place.images[model.engine.value]
    tag = _RELEASE.search(image)
    if tag is not None and (int(tag[1]), int(tag[2])) < SPANNING_VLLM and not asked.accelerator.is_tpu:
        least = ".".join(map(str, SPANNING_VLLM))
        raise UserError(f"{where}: vLLM does that without Ray from {least} on; {place.name} has the image {image}")


def _fetched(model: ModelSpec, place: KubernetesSpec) -> tuple[Path, Fetch]:
    """Where a model will be, which must be known beforehand, and what brings it there."""
    source = model.source or ""
    image = place.fetch_image or place.images.get(Engine.LLAMA_CPP.value)
    if image is None:
        raise UserError(
            f"model {model.name}: {source} is fetched by Swell's own code, and {place.name} has no image with it; "
            "give fetch_image"
        )
    folder = PurePosixPath(MODELS, "links", hashlib.sha256(source.encode()).hexdigest()[:16])
    argv = [PYTHON, "-m", FETCH_MODULE, source, f"--folder={MODELS}", f"--link={folder}"]
    argv += [f"--sha256={model.sha256}"] if model.sha256 else []
    name = PurePosixPath(source.partition("://")[2]).name
    return Path(folder, name) if name.lower().endswith(".gguf") else Path(folder), Fetch(image, tuple(argv))


def _hub_fetch(model: ModelSpec, place: KubernetesSpec, repository: str, revision: str) -> Fetch | None:
    """What brings a repository to where vLLM looks for it; None where it was told to look elsewhere."""
    if any(word.startswith(DOWNLOAD_FOLDER) for word in model.engine_args):
        return None
    image = place.fetch_image or place.images.get(Engine.LLAMA_CPP.value) or place.images[model.engine.value]
    return Fetch(image, (PYTHON, "-c", HUB_SCRIPT, repository, revision, *HUB_PATTERNS))


def _require_inside(model: ModelSpec, path: str) -> Path:
    """A path that Pods have as well, because it is in their cache."""
    if not path.startswith(f"{MODELS}/") or ".." in PurePosixPath(path).parts:
        raise UserError(
            f"model {model.name}: {path} is a file of the server's machine, and Pods have another; name a source that "
            f"can be fetched, such as hf://, or a path below {MODELS}, which is the Pods' model_cache"
        )
    return Path(path)


def _accelerator(model: ModelSpec) -> tuple[int, str]:
    """How many of which: the first that the model names. Others are for pools of their own."""
    if not model.accelerators:
        return 0, ""
    try:
        asked = asked_for(model.accelerators[0])
    except UserError as error:
        raise UserError(f"model {model.name}: {error}") from error
    return asked.count, asked.kind
