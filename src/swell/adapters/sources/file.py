"""`file:///absolute/path` or a plain path: a file or a folder of this machine, used where it is."""

import os
from pathlib import Path
from urllib.parse import unquote

from swell.adapters.sources.names import MAX_FILES, PICKLE_REFUSAL, is_pickle, is_weight
from swell.errors import SourceError
from swell.ports.model_source import Fetched, Progress

MAX_FOLDER_DEPTH = 4


class FileSource:
    """Lists the user's own files. Hidden files and folders are left out."""

    def fetch(self, address: str, into: Path, progress: Progress) -> Fetched:
        path = local_path(address)
        try:
            if path.is_dir():
                return Fetched(root=path, names=_folder_names(address, path), in_place=True)
            if path.is_file():
                return Fetched(root=path.parent, names=(path.name,), entry=path.name, in_place=True)
        except PermissionError as error:
            raise SourceError(f"{address}: {error.filename} may not be read by this user; change its mode.") from error
        if path.exists():
            raise SourceError(f"{address} is neither a file nor a folder.")
        raise SourceError(f"{address}: no such file; check the path ({path}).")


def local_path(address: str) -> Path:
    """The absolute path that `address` names."""
    if not address.startswith("file://"):
        return Path(address).absolute()
    rest = unquote(address.removeprefix("file://").removeprefix("localhost"))
    if not rest.startswith("/") or "\0" in rest:
        raise SourceError(f"{address} is not an absolute path; write file:///folder/file (three slashes).")
    return Path(rest)


def _folder_names(address: str, folder: Path) -> tuple[str, ...]:
    names: list[str] = []
    for parent, folders, files in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(relative.parts) >= MAX_FOLDER_DEPTH:
            folders.clear()
        names += [(relative / name).as_posix() for name in files if not name.startswith(".")]
        if len(names) > MAX_FILES:
            raise SourceError(f"{address} holds more than {MAX_FILES} files; name the model's own folder.")
    if pickled := next((name for name in sorted(names) if is_pickle(name)), None):
        raise SourceError(f"{address}: {pickled} {PICKLE_REFUSAL}.")
    if not any(is_weight(name) for name in names):
        raise SourceError(f"{address} holds no .safetensors or .gguf file; check the path.")
    return tuple(sorted(names))
