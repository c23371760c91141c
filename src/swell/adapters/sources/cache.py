"""A content-addressed cache of models.

    blobs/<sha256>                  a file's content, read-only, shared by every model that has it
    manifests/<key>.json            what an address stands for: names, sizes, sums, when it was fetched
    views/<digest>/<name>           links into blobs under the names engines expect
    partial/<key>/                  what an interrupted fetch left, continued by the next
    locks/<key>                     held while an address is fetched or checked

`<key>` is the SHA-256 of the address. A model's `digest` is its file's SHA-256; for a model of several files it is the
SHA-256 of the text that `sha256sum` prints for them, sorted by name, so anybody can compute it.

Cached content is trusted while size and modification time are those recorded, is hashed anew where they differ or
`verify` asks for it, and is fetched again where the hash is wrong. Manifests are written last, so a kill at any point
leaves either a complete model or one that is fetched further.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from swell.adapters.sources.folders import hash_file, locked
from swell.adapters.sources.formats import check_format
from swell.clock import Clock, SystemClock
from swell.errors import SourceError
from swell.ports.model_source import Fetched, ModelSource, Progress, no_progress

LOCK_WAIT_SECONDS = 3600.0


class CachedFile(msgspec.Struct, frozen=True):
    """One file of a model as it was when it was hashed."""

    name: str
    size_bytes: int
    modified_ns: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What an address stood for when it was fetched. `root` is set for files that stay where the user has them."""

    address: str
    digest: str
    entry: str
    files: tuple[CachedFile, ...]
    fetched_at_unix: float
    root: str = ""


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine: `path` is the file or folder for the engine, `digest` its SHA-256."""

    path: Path
    digest: str
    size_bytes: int


def default_cache_folder(environment: Mapping[str, str]) -> Path:
    """`SWELL_CACHE`, or `~/.cache/swell/models` (under `XDG_CACHE_HOME` where that is set)."""
    if given := environment.get("SWELL_CACHE"):
        return Path(given).absolute()
    base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME") or Path.home(), ".cache"))
    return Path(base, "swell", "models")


def scheme_of(address: str) -> str:
    """The scheme of an address; a plain path is `file`."""
    scheme, separator, _ = address.partition("://")
    return scheme if separator else "file"


class ModelCache:
    """Models under `folder`, fetched by `sources` (by scheme). Safe with any number of processes."""

    def __init__(
        self,
        folder: Path,
        sources: Mapping[str, ModelSource],
        *,
        clock: Clock | None = None,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:
        self._folder = folder.absolute()
        self._sources = sources
        self._clock = clock or SystemClock()
        self._lock_wait_seconds = lock_wait_seconds

    def ensure(
        self, address: str, *, sha256: str | None = None, progress: Progress = no_progress, verify: bool = False
    ) -> LocalModel:
        """The model at `address`, fetched if it is not here yet. Quick and offline when it is.

        `sha256` is the digest that it must have. `verify` hashes everything anew. Raises SourceError.
        """
        if scheme_of(address) not in self._sources:
            known = ", ".join(f"{scheme}://" for scheme in self._sources)
            raise SourceError(f"{address} has an unknown scheme; known are {known}.")
        key = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
        try:
            manifest = self._read_manifest(key, address)
            if manifest is not None and not verify and _agrees(manifest, sha256) and self._is_unchanged(manifest):
                return self._local_model(manifest)
            for name in ("blobs", "manifests", "views", "partial", "locks"):
                (self._folder / name).mkdir(parents=True, exist_ok=True)
            with locked(self._folder / "locks" / key, wait_seconds=self._lock_wait_seconds, what=address):
                return self._ensure_locked(key, address, sha256, progress, verify)
        except OSError as error:
            raise SourceError(f"{address}: {error.strerror or error} ({error.filename or self._folder}).") from error

    def _ensure_locked(
        self, key: str, address: str, sha256: str | None, progress: Progress, verify: bool
    ) -> LocalModel:
        manifest = self._read_manifest(key, address)
        if manifest is not None and _agrees(manifest, sha256):
            if verify or not self._is_unchanged(manifest):
                manifest = self._rehash(key, manifest, progress)
            if manifest is not None:
                return self._local_model(manifest)
        return self._local_model(self._fetch(key, address, sha256, progress))

    def _fetch(self, key: str, address: str, sha256: str | None, progress: Progress) -> Manifest:
        partial = self._folder / "partial" / key
        partial.mkdir(exist_ok=True)
        fetched = self._sources[scheme_of(address)].fetch(address, partial, progress)
        try:
            manifest = self._describe(address, fetched, progress)
            if not _agrees(manifest, sha256):
                raise SourceError(
                    f"{address} has the SHA-256 {manifest.digest} and {sha256} is expected. Correct sha256 in the spec "
                    "if the model is meant to have changed; otherwise the source cannot be trusted."
                )
            if not fetched.in_place:
                for file in manifest.files:
                    self._keep(fetched.root / file.name, self._blob(file))
                self._link(manifest)
            self._write_manifest(key, manifest)
        except SourceError:  # refused: nothing of it stays
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(partial, ignore_errors=True)
        return manifest

    def _describe(self, address: str, fetched: Fetched, progress: Progress) -> Manifest:
        """Check formats and sums of what was fetched."""
        files: list[CachedFile] = []
        paths = {name: fetched.root / name for name in sorted(fetched.names)}
        total, done = sum(path.stat().st_size for path in paths.values()), 0
        for name, path in paths.items():
            check_format(path, name)
            status = path.stat()
            digest = hash_file(path, progress, done, total)
            promised = fetched.sha256.get(name, digest)
            if digest != promised:
                raise SourceError(
                    f"{address}: {name} has the SHA-256 {digest} and its source promises {promised}; try again."
                )
            done += status.st_size
            files.append(CachedFile(name, status.st_size, status.st_mtime_ns, digest))
        root = str(fetched.root) if fetched.in_place else ""
        return Manifest(address, _digest(files), fetched.entry, tuple(files), self._clock.unix(), root)

    def _rehash(self, key: str, manifest: Manifest, progress: Progress) -> Manifest | None:
        """The manifest with new times where every sum still holds; None, and damaged blobs gone, where one does not."""
        files: list[CachedFile] = []
        total, done, sound = sum(file.size_bytes for file in manifest.files), 0, True
        for file in manifest.files:
            path = self._path(manifest, file)
            if path.is_file() and hash_file(path, progress, done, total) == file.sha256:
                files.append(msgspec.structs.replace(file, modified_ns=path.stat().st_mtime_ns))
            else:
                sound = False
                if not manifest.root:
                    path.unlink(missing_ok=True)
            done += file.size_bytes
        if not sound:
            return None
        renewed = msgspec.structs.replace(manifest, files=tuple(files))
        self._write_manifest(key, renewed)
        if not renewed.root:
            self._link(renewed)
        return renewed

    def _is_unchanged(self, manifest: Manifest) -> bool:
        for file in manifest.files:
            try:
                status = self._path(manifest, file).stat()
            except OSError:
                return False
            if (status.st_size, status.st_mtime_ns) != (file.size_bytes, file.modified_ns):
                return False
        return bool(manifest.root) or all(self._view(manifest, file).exists() for file in manifest.files)

    def _local_model(self, manifest: Manifest) -> LocalModel:
        root = Path(manifest.root) if manifest.root else self._folder / "views" / manifest.digest
        return LocalModel(root / manifest.entry, manifest.digest, sum(file.size_bytes for file in manifest.files))

    def _path(self, manifest: Manifest, file: CachedFile) -> Path:
        return Path(manifest.root, file.name) if manifest.root else self._blob(file)

    def _blob(self, file: CachedFile) -> Path:
        return self._folder / "blobs" / file.sha256

    def _view(self, manifest: Manifest, file: CachedFile) -> Path:
        return self._folder / "views" / manifest.digest / file.name

    def _keep(self, path: Path, blob: Path) -> None:
        path.chmod(0o444)
        _sync(path)
        path.replace(blob)  # an equal blob of another model is replaced by equal content
        _sync(blob.parent)

    def _link(self, manifest: Manifest) -> None:
        for file in manifest.files:
            view = self._view(manifest, file)
            view.parent.mkdir(parents=True, exist_ok=True)
            fresh = view.with_name(f".{view.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(os.path.relpath(self._blob(file), view.parent))
            fresh.replace(view)

    def _read_manifest(self, key: str, address: str) -> Manifest | None:
        """None where there is none, or none that can be read: the address is then fetched again."""
        try:
            manifest = msgspec.json.decode((self._folder / "manifests" / f"{key}.json").read_bytes(), type=Manifest)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return manifest if manifest.address == address and manifest.files else None

    def _write_manifest(self, key: str, manifest: Manifest) -> None:
        path = self._folder / "manifests" / f"{key}.json"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        _sync(fresh)
        fresh.replace(path)
        _sync(path.parent)


def _agrees(manifest: Manifest, sha256: str | None) -> bool:
    return sha256 is None or manifest.digest == sha256.lower()


def _digest(files: list[CachedFile]) -> str:
    if len(files) == 1:
        return files[0].sha256
    listing = "".join(f"{file.sha256}  {file.name}\n" for file in files)
    return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
