"""`hf://org/name[@revision][/file.gguf]`: a repository of the Hugging Face Hub, safetensors or GGUF only.

The revision is resolved to a commit first and the list of files is taken from there, so that what comes back is known
to be complete: `snapshot_download` alone returns a half-filled folder when the network is gone. Sums of large files
are the Hub's own and are checked by the cache. A token comes from HF_TOKEN or `hf auth login`.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from swell.adapters.sources.folders import folder_bytes, require_room, watched
from swell.adapters.sources.names import PICKLE_REFUSAL, choose_names, is_pickle, safe_name
from swell.errors import SourceError
from swell.ports.model_source import Fetched, Progress

_ADDRESS = re.compile(
    r"hf://(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[\w.-]{1,100}))?(/(?P<file>.+))?", re.ASCII
)
_SHARD = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})\.gguf", re.I)
REQUEST_SECONDS = 60.0


class HfSource:
    """Fetches with huggingface_hub. `endpoint` replaces HF_ENDPOINT."""

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint

    def fetch(self, address: str, into: Path, progress: Progress) -> Fetched:
        repository, revision, file = parse_address(address)
        import huggingface_hub as hub  # slow to import; most starts find the model in the cache

        if hub.is_offline_mode():
            raise SourceError(f"{address} is not in the cache and HF_HUB_OFFLINE is set; unset it to fetch the model.")
        files = into / "files"
        files.mkdir(exist_ok=True)
        try:
            info = hub.HfApi(endpoint=self._endpoint).model_info(
                repository, revision=revision, files_metadata=True, timeout=REQUEST_SECONDS
            )
            listed = {sibling.rfilename: sibling for sibling in info.siblings or ()}
            names = _shards(address, file, listed) if file else choose_names(address, listed)
            total = sum(listed[name].size or 0 for name in names)
            require_room(into, total - folder_bytes(files))
            with watched(files, total, progress):
                hub.snapshot_download(
                    repository,
                    revision=info.sha,
                    local_dir=files,
                    cache_dir=into / "hub",  # its notes on the repository; the default is outside `into`
                    allow_patterns=[_literal(name) for name in names],
                    endpoint=self._endpoint,
                    tqdm_class=_silent(),
                )
        except SourceError:
            raise
        except Exception as error:  # the Hub's client raises types of several HTTP libraries
            raise SourceError(f"{address}: {_advice(error)}") from error
        _require_complete(address, files, {name: listed[name].size for name in names})
        sums = {name: lfs.sha256 for name in names if (lfs := listed[name].lfs) is not None}
        return Fetched(root=files, names=names, entry=file, sha256=sums)


def parse_address(address: str) -> tuple[str, str | None, str]:
    """Repository, revision (None: the default branch) and file (empty: all) of an `hf://` address."""
    match = _ADDRESS.fullmatch(address)
    if not match or ".." in address:
        raise SourceError(f"{address} is not an address such as hf://org/name, hf://org/name@revision/file.gguf.")
    file = match["file"] or ""
    if is_pickle(file):
        raise SourceError(f"{address} {PICKLE_REFUSAL}.")
    if file and not file.lower().endswith(".gguf"):
        raise SourceError(f"{address}: only a .gguf file can be named by itself; leave the file out for safetensors.")
    return match["repository"], match["revision"], safe_name(address, file) if file else ""


def _shards(address: str, file: str, listed: Iterable[str]) -> tuple[str, ...]:
    """`file`, with its siblings where it is one of several shards."""
    names: tuple[str, ...] = (file,)
    if match := _SHARD.fullmatch(file):
        count = int(match["count"])
        names = tuple(f"{match['stem']}-{index:05}-of-{count:05}.gguf" for index in range(1, count + 1))
    missing = sorted(set(names) - set(listed))
    if missing:
        found = ", ".join(sorted(name for name in listed if name.lower().endswith(".gguf"))[:8]) or "none"
        raise SourceError(f"{address}: the repository has no file {missing[0]}. GGUF files there: {found}.")
    return names


def _literal(name: str) -> str:
    """`name` as a pattern that matches only itself."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _silent() -> type[Any]:
    """The Hub's progress bar without its output; progress is reported by how the folder grows."""
    from huggingface_hub.utils.tqdm import tqdm

    class SilentBar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[no-untyped-call]

    return SilentBar


def _require_complete(address: str, files: Path, sizes: dict[str, int | None]) -> None:
    for name, size in sizes.items():
        path = files / name
        if not path.is_file() or (size is not None and path.stat().st_size != size):
            raise SourceError(f"{address}: {name} did not arrive whole; run the same command again to continue.")


def _advice(error: Exception) -> str:
    kind = type(error).__name__
    if kind in ("RepositoryNotFoundError", "GatedRepoError"):
        return "not found, or not open to you; check the name, accept the licence on the Hub, and set HF_TOKEN."
    if kind == "RevisionNotFoundError":
        return "the repository has no such revision; check what follows @."
    reason = str(error).strip().splitlines()
    return (
        f"the Hub could not be reached ({kind}: {reason[0][:200] if reason else ''}); check the network and try again."
    )
