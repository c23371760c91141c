"""Only what is safetensors or GGUF inside passes, whatever it is called."""

import json
import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_files import gguf_bytes, safetensors_bytes, write_torch_checkpoint

from swell.adapters.sources.formats import check_format
from swell.adapters.sources.names import choose_names, safe_name
from swell.errors import SourceError


def accept(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    check_format(path, path.name)
    return True


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.gguf", gguf_bytes()),
        ("M.GGUF", gguf_bytes(version=2)),
        ("m.safetensors", safetensors_bytes()),
        ("config.json", b"{}"),
        ("tokenizer.model", b"\n\x05<unk>"),
    ],
)
def test_real_files_pass(tmp_path: Path, name: str, content: bytes) -> None:
    assert accept(tmp_path / name, content)


@pytest.mark.parametrize("name", ["m.bin", "m.pt", "m.pth", "m.ckpt", "m.pkl", "M.BIN", "m.gguf", "m.safetensors", "m"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_refused_under_any_name(tmp_path: Path, name: str, protocol: int) -> None:
    with pytest.raises(SourceError, match="safetensors and GGUF only"):
        accept(tmp_path / name, pickle.dumps({"w": 1}, protocol))


@pytest.mark.parametrize("name", ["m.gguf", "m.safetensors", "model"])
def test_a_renamed_torch_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    write_torch_checkpoint(tmp_path / name)
    with pytest.raises(SourceError, match="pickle-format"):
        check_format(tmp_path / name, name)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.gguf", b"", "not a GGUF file"),
        ("m.gguf", b"GGUF\x09\0\0\0", "version 9"),
        ("m.gguf", b"<html>sign in</html>", "looks like a web page"),
        ("m.gguf", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("m.safetensors", b"", "not a safetensors file"),
        ("m.safetensors", b"\xff" * 64, "not a safetensors file"),
        ("m.safetensors", struct.pack("<Q", 4) + b"[1]x", "not a safetensors file"),
        ("m.safetensors", struct.pack("<Q", 20_000) + b"[" * 20_000, "not a safetensors file"),
        ("m.safetensors", safetensors_bytes()[:-1], "cut short"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        accept(tmp_path / name, content)


@given(st.binary(max_size=200), st.sampled_from(["m.gguf", "m.safetensors", "m.json"]))
def test_any_bytes_are_accepted_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / name
    try:
        accepted = accept(path, content)
    except SourceError:
        accepted = False
    assert not (accepted and name == "m.gguf" and content[:4] != b"GGUF")


@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.lists(st.integers(), max_size=3), max_size=3)
)
def test_any_safetensors_header_is_accepted_or_refused(
    tmp_path_factory: pytest.TempPathFactory, entry: dict[str, object]
) -> None:
    header = json.dumps({"w": entry, "v": {"data_offsets": [0, 4]}}).encode()
    path = tmp_path_factory.getbasetemp() / "h.safetensors"
    assert accept(path, struct.pack("<Q", len(header)) + header + bytes(4))


@pytest.mark.parametrize("name", ["../a.gguf", "/a.gguf", "a/../../b.gguf", "a\\b.gguf", "a\n.gguf", "", "./a", "a//b"])
def test_names_that_could_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match="refused"):
        safe_name("hf://a/b", name)


def test_what_is_fetched_of_a_repository() -> None:
    listed = [
        "m.safetensors",
        "config.json",
        "tokenizer.model",
        "pytorch_model.bin",
        "modeling.py",
        "m.Q4.gguf",
        "README.md",
    ]
    assert choose_names("hf://a/b", listed) == ("config.json", "m.safetensors", "tokenizer.model")
    assert choose_names("hf://a/b", ["m.gguf"]) == ("m.gguf",)
    with pytest.raises(SourceError, match=r"2 GGUF files; name one, such as hf://a/b/m\.Q4\.gguf"):
        choose_names("hf://a/b", ["m.Q4.gguf", "m.Q8.gguf"])
    with pytest.raises(SourceError, match="pickle-format"):
        choose_names("hf://a/b", ["pytorch_model.bin", "config.json"])
    with pytest.raises(SourceError, match="check the address"):
        choose_names("hf://a/b", ["README.md"])
    with pytest.raises(SourceError, match="lead outside"):
        choose_names("hf://a/b", ["../m.safetensors"])
