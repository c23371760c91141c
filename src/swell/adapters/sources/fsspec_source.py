"""`s3://bucket/…`, `gs://bucket/…` and every other store that fsspec knows: one file, or a folder of safetensors.

Files are read in ranges and appended to a part file, so an interrupted fetch goes on where it stopped, unless the
remote file has changed since (its size or the store's own checksum differs).
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from swell.adapters.sources.folders import CHUNK_BYTES, require_room
from swell.adapters.sources.names import PICKLE_REFUSAL, choose_names, is_pickle, is_weight
from swell.errors import SourceError
from swell.ports.model_source import Fetched, Progress


class FsspecSource:
    """Fetches through the filesystem that fsspec has for the address's scheme."""

    def __init__(self, install_hint: str = "") -> None:
        self._install_hint = install_hint

    def fetch(self, address: str, into: Path, progress: Progress) -> Fetched:
        if "::" in address:  # fsspec would read it as one filesystem inside another
            raise SourceError(f"{address} holds '::'; name a plain bucket and path.")
        import fsspec  # type: ignore[import-untyped]  # here because most starts find the model in the cache

        files = into / "files"
        files.mkdir(exist_ok=True)
        try:
            store, path = fsspec.core.url_to_fs(address)
            remote, entry = _list(address, store, path)
            total = sum(store.info(source)["size"] for source in remote.values())
            require_room(into, total - sum(_held(files / name) for name in remote))
            done = 0
            for name, source in remote.items():
                done = _fetch_file(store, source, files / name, done, total, progress)
        except SourceError:
            raise
        except ImportError as error:
            advice = f"run: {self._install_hint}" if self._install_hint else "install fsspec's package for it"
            raise SourceError(f"{address}: the package for this kind of address is missing; {advice}") from error
        except FileNotFoundError as error:
            raise SourceError(f"{address}: nothing there; check the bucket and the path.") from error
        except PermissionError as error:
            raise SourceError(f"{address}: access refused; check the credentials of this machine.") from error
        except Exception as error:  # every store raises types of its own
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise SourceError(
                f"{address}: reading it failed ({reason}); run the same command again to continue."
            ) from error
        return Fetched(root=files, names=tuple(remote), entry=entry)


def _list(address: str, store: Any, path: str) -> tuple[dict[str, str], str]:
    """Remote paths by local name, and the entry's name where the address is one file."""
    if store.isfile(path):
        name = PurePosixPath(path).name
        if is_pickle(name):
            raise SourceError(f"{address} {PICKLE_REFUSAL}.")
        if not is_weight(name):
            raise SourceError(f"{address} is neither a .gguf nor a .safetensors file; name one, or the model's folder.")
        return {name: path}, name
    prefix = path.rstrip("/") + "/"
    found = {source.removeprefix(prefix): source for source in store.find(path) if source.startswith(prefix)}
    if not found:
        raise FileNotFoundError(path)
    return {name: found[name] for name in choose_names(address, found)}, ""


def _held(target: Path) -> int:
    part = target.with_name(target.name + ".part")
    return next((path.stat().st_size for path in (target, part) if path.exists()), 0)


def _fetch_file(store: Any, source: str, target: Path, done: int, total: int, progress: Progress) -> int:
    """Bring one file to `target`; returns `done` plus its size."""
    info = store.info(source)
    size = int(info["size"])
    identity = json.dumps([size, str(store.checksum(source))])
    part, noted = target.with_name(target.name + ".part"), target.with_name(target.name + ".identity")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not noted.exists() or noted.read_text() != identity:
        for stale in (part, target):
            stale.unlink(missing_ok=True)
        noted.write_text(identity)
    if target.exists():
        progress(done + size, total)
        return done + size
    with part.open("ab") as file:
        held = file.tell()
        if held > size:  # cannot be a beginning of this file
            file.truncate(0)
            held = 0
        while held < size:
            chunk = store.cat_file(source, start=held, end=min(held + CHUNK_BYTES, size))
            if not chunk:
                raise SourceError(
                    f"{source} ended after {held} of {size} bytes; run the same command again to continue."
                )
            held += file.write(chunk)
            file.flush()
            progress(done + held, total)
    part.rename(target)
    return done + size
