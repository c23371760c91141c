"""What a file really is, by its first bytes: a pickle renamed to .gguf or .safetensors is still a pickle."""

import json
import struct
import zipfile
from pathlib import Path

from swell.adapters.sources.names import PICKLE_REFUSAL, is_pickle
from swell.errors import SourceError

MAX_SAFETENSORS_HEADER_BYTES = 100_000_000  # the format's own limit
_GGUF_VERSIONS = (2, 3)
_PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"<htm": "a web page",
    b"<!DO": "a web page",
    b"version https://git-lfs": "a Git LFS pointer (run git lfs pull)",
}


def check_format(path: Path, name: str) -> None:
    """Raise SourceError unless the file at `path`, called `name`, is what a model may consist of."""
    with path.open("rb") as file:
        head = file.read(32)
    if is_pickle(name) or head.startswith(_PICKLE_PROTOCOLS) or _is_pickle_archive(path, head):
        raise SourceError(f"{name} {PICKLE_REFUSAL}.")
    suffix = Path(name).suffix.lower()
    if suffix == ".gguf":
        _check_gguf(name, head)
    elif suffix == ".safetensors":
        _check_safetensors(path, name, head)


def _is_pickle_archive(path: Path, head: bytes) -> bool:
    """PyTorch's own format is a zip with a pickle inside."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(member.endswith(".pkl") for member in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _looks_like(head: bytes) -> str:
    found = next((kind for magic, kind in _ARCHIVES.items() if head.startswith(magic)), "")
    return f"; it looks like {found}" if found else ""


def _check_gguf(name: str, head: bytes) -> None:
    if not head.startswith(b"GGUF"):
        raise SourceError(f"{name} is not a GGUF file{_looks_like(head)}. Fetch it again or choose another file.")
    version = struct.unpack_from("<I", head.ljust(8, b"\0"), 4)[0]
    if version not in _GGUF_VERSIONS:
        raise SourceError(f"{name} is GGUF of version {version}; convert it to version 3 (llama.cpp's gguf tools).")


def _check_safetensors(path: Path, name: str, head: bytes) -> None:
    size = path.stat().st_size
    length = struct.unpack_from("<Q", head)[0] if len(head) >= 8 else 0
    header: object = None
    if 2 <= length <= min(size - 8, MAX_SAFETENSORS_HEADER_BYTES):
        with path.open("rb") as file:
            file.seek(8)
            try:
                header = json.loads(file.read(length))
            except (ValueError, RecursionError):
                header = None
    if not isinstance(header, dict):
        raise SourceError(
            f"{name} is not a safetensors file{_looks_like(head)}. Fetch it again or choose another file."
        )
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__" and _has_offsets(entry)]
    if ends and 8 + length + max(ends) != size:
        raise SourceError(f"{name} is cut short: its header promises {8 + length + max(ends)} bytes, it has {size}.")


def _has_offsets(entry: object) -> bool:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    return isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)
