"""Which files of a model are wanted, and names that stay inside their folder."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from swell.errors import SourceError

WEIGHT_SUFFIXES = (".safetensors", ".gguf")
WANTED_PATTERNS = (
    "*.safetensors",
    "*.gguf",
    "*.json",
    "*.jinja",
    "*.txt",
    "*.model",
    "*.tiktoken",
    "LICENSE*",
)
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_FILES = 10_000

PICKLE_REFUSAL = (
    "is a pickle-format checkpoint, which can run code when it is loaded; Swell serves safetensors and GGUF only. "
    "Use a safetensors or GGUF version of the model"
)


def is_wanted(name: str) -> bool:
    """Whether a file of a remote model is worth fetching: weights, configuration, tokenizer, licence."""
    return any(PurePosixPath(name).match(pattern) for pattern in WANTED_PATTERNS)


def is_weight(name: str) -> bool:
    """Whether `name` ends as safetensors or GGUF files do."""
    return name.lower().endswith(WEIGHT_SUFFIXES)


def is_pickle(name: str) -> bool:
    """Whether `name` ends as pickle-format checkpoints do."""
    return name.lower().endswith(PICKLE_SUFFIXES)


def choose_names(address: str, names: Iterable[str]) -> tuple[str, ...]:
    """The wanted names among a remote model's, sorted. SourceError where there are no weights among them."""
    listed = sorted(names)
    wanted = tuple(safe_name(address, name) for name in listed if is_wanted(name))
    if not any(is_weight(name) for name in wanted):
        if any(is_pickle(name) for name in listed):
            raise SourceError(f"{address} {PICKLE_REFUSAL}.")
        raise SourceError(f"{address} holds no .safetensors or .gguf file; check the address.")
    if any(name.lower().endswith(".safetensors") for name in wanted):
        wanted = tuple(name for name in wanted if not name.lower().endswith(".gguf"))
    elif sum(name.lower().endswith(".gguf") for name in wanted) > 1:
        files = [name for name in wanted if name.lower().endswith(".gguf")]
        raise SourceError(
            f"{address} holds {len(files)} GGUF files; name one, such as {address.rstrip('/')}/{files[0]}"
        )
    if len(wanted) > MAX_FILES:
        raise SourceError(f"{address} has {len(wanted)} files, more than {MAX_FILES}; name one folder or file of it.")
    return wanted


def safe_name(address: str, name: str) -> str:
    """`name` if it stays inside its folder; SourceError for absolute names, `..` and odd characters."""
    path = PurePosixPath(name)
    odd = "\\" in name or any(ord(character) < 32 for character in name)
    if odd or path.is_absolute() or not path.parts or ".." in path.parts or str(path) != name:
        raise SourceError(
            f"{address} names the file {name[:100]!r}, which could lead outside its folder; it is refused."
        )
    return name
