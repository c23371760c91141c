"""Small real files for the tests of model sources."""

import json
import pickle
import struct
import zipfile
from pathlib import Path


def gguf_bytes(size: int = 64, version: int = 3) -> bytes:
    """A GGUF header without tensors, filled up to `size`."""
    return (b"GGUF" + struct.pack("<IQQ", version, 0, 0)).ljust(size, b"\0")


def safetensors_bytes(values: int = 4) -> bytes:
    """One tensor `w` of `values` bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [values], "data_offsets": [0, values]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(range(values))


def write_torch_checkpoint(path: Path) -> None:
    """PyTorch's zip format: a pickle inside an archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"w": [1, 2]}))


def write_wheel(folder: Path, files: dict[str, bytes], name: str = "tiny_model", version: str = "1.0") -> Path:
    """A wheel that pip accepts, with `files` inside."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path
