"""The cache: quick when it has the model, careful when it has not, whole or further along after a kill."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from model_files import gguf_bytes, safetensors_bytes, write_torch_checkpoint

from swell.adapters.sources.cache import ModelCache, default_cache_folder
from swell.adapters.sources.file import FileSource, local_path
from swell.adapters.sources.folders import CHUNK_BYTES
from swell.adapters.sources.fsspec_source import FsspecSource
from swell.clock import ManualClock
from swell.errors import SourceError
from swell.ports.model_source import Fetched, ModelSource, Progress

STORES: dict[str, ModelSource] = {"file": FileSource(), "memory": FsspecSource(), "local": FsspecSource()}


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache", STORES, clock=ManualClock())


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """A store in memory, emptied afterwards."""
    store = fsspec.filesystem("memory")
    yield store
    for path in store.find("/"):
        store.rm(path)


def left_over(folder: Path) -> list[Path]:
    return [path for name in ("blobs", "partial", "manifests", "views") for path in (folder / name).rglob("*")]


def test_a_remote_file_is_fetched_once(cache: ModelCache, bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    content = gguf_bytes(1000)
    bucket.pipe("/b/m.gguf", content)
    seen: list[tuple[int, int | None]] = []
    model = cache.ensure("memory://b/m.gguf", progress=lambda done, total: seen.append((done, total)))
    assert model.path.read_bytes() == content
    assert model.path.name == "m.gguf"
    assert (model.digest, model.size_bytes) == (hashlib.sha256(content).hexdigest(), 1000)
    assert seen[-1] == (1000, 1000)
    assert list((tmp_path / "cache" / "partial").iterdir()) == []
    bucket.rm("/b/m.gguf")
    seen.clear()
    assert cache.ensure("memory://b/m.gguf", sha256=model.digest.upper()) == model
    assert seen == []


def test_a_folder_keeps_its_shape_and_leaves_pickles_behind(
    cache: ModelCache, bucket: fsspec.AbstractFileSystem
) -> None:
    files = {"config.json": b"{}", "a/m.safetensors": safetensors_bytes(), "pytorch_model.bin": b"x", "x.py": b"x"}
    for name, content in files.items():
        bucket.pipe(f"/b/model/{name}", content)
    model = cache.ensure("memory://b/model")
    held = {path.relative_to(model.path).as_posix() for path in model.path.rglob("*") if path.is_file()}
    assert held == {"config.json", "a/m.safetensors"}
    lines = "".join(
        f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in ("a/m.safetensors", "config.json")
    )
    assert model.digest == hashlib.sha256(lines.encode()).hexdigest()


def test_a_wrong_sum_is_refused_and_nothing_stays(
    cache: ModelCache, bucket: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    bucket.pipe("/b/m.gguf", gguf_bytes())
    with pytest.raises(SourceError) as caught:
        cache.ensure("memory://b/m.gguf", sha256="0" * 64)
    assert "0" * 64 in caught.value.message
    assert hashlib.sha256(gguf_bytes()).hexdigest() in caught.value.message
    assert left_over(tmp_path / "cache") == []


def test_a_renamed_pickle_is_refused_and_nothing_stays(
    cache: ModelCache, bucket: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    write_torch_checkpoint(tmp_path / "t")
    bucket.pipe("/b/m.gguf", (tmp_path / "t").read_bytes())
    with pytest.raises(SourceError, match="pickle-format"):
        cache.ensure("memory://b/m.gguf")
    assert left_over(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("memory://b/none.gguf", "nothing there"),
        ("memory://b/m.bin", "pickle-format"),
        ("memory://b/readme.txt", "neither a .gguf nor a .safetensors"),
        ("memory://b::local:///etc/passwd", "plain bucket"),
        ("xyz://b/m", "unknown scheme; known are file://"),
        ("/no/such/file.gguf", "no such file"),
        ("file://relative/m.gguf", "three slashes"),
    ],
)
def test_addresses_that_cannot_be_had(
    cache: ModelCache, bucket: fsspec.AbstractFileSystem, address: str, words: str
) -> None:
    bucket.pipe("/b/m.bin", b"x")
    bucket.pipe("/b/readme.txt", b"x")
    with pytest.raises(SourceError, match=words):
        cache.ensure(address)


def test_a_store_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, {"nostore": FsspecSource(install_hint="pip install 'swell[aws]'")})
    with pytest.raises(SourceError):
        cache.ensure("nostore://b/m.gguf")
    with pytest.raises(SourceError, match=r"pip install 'swell\[aws\]'"):
        ModelCache(tmp_path, {"oci": FsspecSource(install_hint="pip install 'swell[aws]'")}).ensure("oci://b/m.gguf")


def test_damage_of_the_same_size_is_found_on_demand_and_repaired(
    cache: ModelCache, bucket: fsspec.AbstractFileSystem
) -> None:
    bucket.pipe("/b/m.gguf", gguf_bytes(100))
    blob = cache.ensure("memory://b/m.gguf").path.resolve()
    before = blob.stat()
    blob.chmod(0o644)
    blob.write_bytes(gguf_bytes(99) + b"!")
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.ensure("memory://b/m.gguf").path.read_bytes() != gguf_bytes(100)
    assert cache.ensure("memory://b/m.gguf", verify=True).path.read_bytes() == gguf_bytes(100)


def test_a_touched_file_is_hashed_and_not_fetched_again(cache: ModelCache, bucket: fsspec.AbstractFileSystem) -> None:
    bucket.pipe("/b/m.gguf", gguf_bytes())
    model = cache.ensure("memory://b/m.gguf")
    bucket.rm("/b/m.gguf")
    os.utime(model.path.resolve())
    assert cache.ensure("memory://b/m.gguf") == model


@pytest.mark.parametrize("damage", ["truncate", "remove blob", "remove view", "manifest"])
def test_a_damaged_cache_repairs_itself(
    cache: ModelCache, bucket: fsspec.AbstractFileSystem, tmp_path: Path, damage: str
) -> None:
    bucket.pipe("/b/m.gguf", gguf_bytes(100))
    path = cache.ensure("memory://b/m.gguf").path
    if damage == "truncate":
        path.resolve().chmod(0o644)
        os.truncate(path.resolve(), 50)
    elif damage == "remove blob":
        path.resolve().unlink()
    elif damage == "remove view":
        path.unlink()
    else:
        (manifest,) = (tmp_path / "cache" / "manifests").iterdir()
        manifest.write_text("{")
    assert cache.ensure("memory://b/m.gguf").path.read_bytes() == gguf_bytes(100)


def test_a_changed_expectation_asks_the_source_again(cache: ModelCache, bucket: fsspec.AbstractFileSystem) -> None:
    bucket.pipe("/b/m.gguf", gguf_bytes(100))
    cache.ensure("memory://b/m.gguf")
    bucket.pipe("/b/m.gguf", gguf_bytes(200))
    expected = hashlib.sha256(gguf_bytes(200)).hexdigest()
    assert cache.ensure("memory://b/m.gguf", sha256=expected).digest == expected


def test_a_part_of_another_version_is_not_continued(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "m.gguf.part").write_bytes(b"old beginning")
    (files / "m.gguf.identity").write_text("of another file")
    bucket.pipe("/b/m.gguf", gguf_bytes(100))
    FsspecSource().fetch("memory://b/m.gguf", tmp_path, lambda done, total: None)
    assert (files / "m.gguf").read_bytes() == gguf_bytes(100)


def test_local_files_are_used_in_place(cache: ModelCache, tmp_path: Path) -> None:
    path = tmp_path / "my model.gguf"
    path.write_bytes(gguf_bytes(100))
    by_path, by_url = cache.ensure(str(path)), cache.ensure(f"file://{tmp_path}/my%20model.gguf")
    assert by_path.path == by_url.path == path
    assert by_path.digest == hashlib.sha256(gguf_bytes(100)).hexdigest()
    assert list((tmp_path / "cache" / "blobs").iterdir()) == []
    path.write_bytes(gguf_bytes(200))
    assert cache.ensure(str(path)).digest == hashlib.sha256(gguf_bytes(200)).hexdigest()
    with pytest.raises(SourceError, match="is expected"):
        cache.ensure(str(path), sha256=by_path.digest)
    assert path.exists()


def test_local_folders(cache: ModelCache, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(SourceError, match=r"holds no \.safetensors"):
        cache.ensure(str(folder))
    (folder / "m.safetensors").write_bytes(safetensors_bytes())
    assert cache.ensure(str(folder)).path == folder
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(SourceError, match="pickle-format"):
        FileSource().fetch(str(folder), tmp_path, lambda done, total: None)


def test_relative_paths_are_made_absolute() -> None:
    assert local_path("m.gguf") == Path.cwd() / "m.gguf"


def test_the_default_folder() -> None:
    assert default_cache_folder({"SWELL_CACHE": "/x"}) == Path("/x")
    assert default_cache_folder({"HOME": "/h"}) == Path("/h/.cache/swell/models")
    assert default_cache_folder({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/c/swell/models")


def test_the_manifest_tells_what_was_fetched(
    cache: ModelCache, bucket: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    bucket.pipe("/b/m.gguf", gguf_bytes(100))
    model = cache.ensure("memory://b/m.gguf")
    (path,) = (tmp_path / "cache" / "manifests").iterdir()
    manifest = json.loads(path.read_text())
    assert (manifest["address"], manifest["digest"]) == ("memory://b/m.gguf", model.digest)
    assert manifest["files"][0]["size_bytes"] == 100
    assert manifest["fetched_at_unix"] == ManualClock().unix()


def test_a_source_may_promise_sums(tmp_path: Path) -> None:
    class Promising:
        def fetch(self, address: str, into: Path, progress: Progress) -> Fetched:
            (into / "m.gguf").write_bytes(gguf_bytes())
            return Fetched(into, ("m.gguf",), "m.gguf", sha256={"m.gguf": "1" * 64})

    with pytest.raises(SourceError, match="its source promises 1111"):
        ModelCache(tmp_path, {"p": Promising()}).ensure("p://x")
    assert left_over(tmp_path) == []


def test_waiting_for_another_process_is_bounded(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    bucket.pipe("/b/m.gguf", gguf_bytes())
    cache = ModelCache(tmp_path, STORES, lock_wait_seconds=0.3)
    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / hashlib.sha256(b"memory://b/m.gguf").hexdigest()).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SourceError, match="another process has been fetching"):
            cache.ensure("memory://b/m.gguf")
    assert cache.ensure("memory://b/m.gguf").size_bytes == 64


def test_a_cache_that_cannot_be_written_says_so(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    bucket.pipe("/b/m.gguf", gguf_bytes())
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SourceError, match="cache"):
        ModelCache(tmp_path / "cache", STORES).ensure("memory://b/m.gguf")


CHILD = """
    import sys
    from pathlib import Path
    from swell.adapters.sources.cache import ModelCache
    from swell.adapters.sources.fsspec_source import FsspecSource

    calls = 0

    def progress(done, total):
        global calls
        calls += 1
        if calls == 1:
            print("fetching", flush=True)
            sys.stdin.readline()

    cache = ModelCache(Path(sys.argv[1]), {"local": FsspecSource()})
    print("started", flush=True)
    model = cache.ensure(sys.argv[2], progress=progress)
    print(model.path, calls, flush=True)
"""


@contextmanager
def child(cache: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    """A process that fetches `address` and stops after its first chunk until it is sent a line."""
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(cache), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert read_line(process) == "started"
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def send_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def write_large_model(path: Path) -> str:
    """Two and a half chunks, mostly a hole."""
    path.write_bytes(gguf_bytes())
    os.truncate(path, CHUNK_BYTES * 5 // 2)
    return f"local://{path}"


@pytest.mark.process
def test_two_processes_fetch_once(tmp_path: Path) -> None:
    address = write_large_model(tmp_path / "m.gguf")
    with child(tmp_path / "cache", address) as first:
        assert read_line(first) == "fetching"
        with child(tmp_path / "cache", address) as second:
            send_line(first)
            path, calls = read_line(first).rsplit(" ", 1)
            assert int(calls) > 1
            assert read_line(second) == f"{path} 0"


@pytest.mark.process
def test_a_killed_fetch_is_continued(tmp_path: Path) -> None:
    address = write_large_model(tmp_path / "m.gguf")
    with child(tmp_path / "cache", address) as first:
        assert read_line(first) == "fetching"
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    assert not list((tmp_path / "cache" / "manifests").iterdir())
    seen: list[int] = []
    cache = ModelCache(tmp_path / "cache", STORES)
    model = cache.ensure(address, progress=lambda done, total: seen.append(done))
    assert seen[0] == 2 * CHUNK_BYTES
    assert model.digest == hashlib.sha256((tmp_path / "m.gguf").read_bytes()).hexdigest()
