"""What a place of the spec means for a model's replicas: what they need there, and where they find the model."""

from dataclasses import dataclass
from pathlib import Path

from swell.errors import UserError
from swell.ports.provider import Mount, Needs
from swell.spec import ContainerSpec, ModelSpec

MODELS = "/models"  # the model cache, inside a container
FILES = "/files"  # a model that stays where the user has it
ADAPTERS = "/adapters"


@dataclass(frozen=True)
class Contained:
    """A model as its container sees it."""

    spec: ModelSpec
    path: Path
    needs: Needs


def contained(model: ModelSpec, place: ContainerSpec, path: Path, cache: Path) -> Contained:
    """A model whose file or folder is `path` on the server's machine, in a container of `place`.

    Raises UserError for files that the daemon cannot be told to mount.
    """
    mounts: list[Mount] = []
    inside = _mounted(model.name, place, path, cache, f"{FILES}/{path.name}", mounts)
    adapters = tuple(
        adapter.model_copy(
            update={"path": str(_mounted(model.name, place, Path(adapter.path), cache, f"{ADAPTERS}/{i}", mounts))}
        )
        for i, adapter in enumerate(model.lora)
    )
    needs = Needs(
        image=place.images[model.engine.value],
        cpus=place.cpus or 0.0,
        memory_bytes=place.memory or 0,
        accelerators=place.gpus_each,
        mounts=tuple(mounts),
    )
    return Contained(model.model_copy(update={"lora": adapters}), inside, needs)


def _mounted(name: str, place: ContainerSpec, path: Path, cache: Path, alone: str, mounts: list[Mount]) -> Path:
    """Where a path is found inside, with what must be mounted for it added to `mounts`."""
    if path.is_relative_to(cache):
        mount = Mount(place.model_cache or str(cache), MODELS)
        if mount not in mounts:
            mounts.append(mount)
        return Path(MODELS) / path.relative_to(cache)
    if place.model_cache is not None:
        raise UserError(
            f"model {name}: {path} is not in the model cache, and the daemon of {place.name} sees no other files of "
            f"the server's (model_cache); name a source that is fetched, such as hf://"
        )
    mounts.append(Mount(str(path.resolve()), alone))
    return Path(alone)
