"""The two secrets of a state directory: the store's key and the key pepper.

Both are files of random bytes, used exactly as they are (a trailing newline would be part of the secret), made on
first use unless the environment names files of its own. Neither is ever in the database: who steals the database
alone can neither read it nor test guesses at keys.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swell.errors import StateError
from swell.security.private_files import create_private, read_private

SECRET_BYTES = 32
MAX_PEPPER_BYTES = 4096
PEPPER_VARIABLE = "SWELL_PEPPER_FILE"
STORE_KEY_VARIABLE = "SWELL_STORE_KEY_FILE"


@dataclass(frozen=True)
class Secrets:
    """The secrets, kept out of `repr`, and the files that they came from."""

    store_key: bytes = field(repr=False)
    pepper: bytes = field(repr=False)
    store_key_file: Path
    pepper_file: Path


def load_secrets(folder: Path, environ: Mapping[str, str]) -> Secrets:
    """Load the secrets in `folder` (made on first use), or those that `environ` names. Raises StateError."""
    pepper_file, own_pepper = _locate(folder / "pepper", environ.get(PEPPER_VARIABLE))
    store_key_file, own_store_key = _locate(folder / "store.key", environ.get(STORE_KEY_VARIABLE))
    # The pepper is made before the store key, so a store key without a pepper means that the pepper was lost. With a
    # new one every key that was ever handed out would be refused, and nobody would know why. Looked at in this order
    # because another process may be making both right now.
    was_used_before = own_store_key and store_key_file.exists()
    if own_pepper and not pepper_file.exists():
        if was_used_before:
            raise StateError(
                f"the key pepper {pepper_file} is gone, and without it no existing key works; bring it back from a "
                f"backup, or, to give up all keys and records, move the state directory away"
            )
        _create(pepper_file)
    if own_store_key and not store_key_file.exists():
        _create(store_key_file)
    store_key = read_private(store_key_file, "the store key")
    if len(store_key) != SECRET_BYTES:
        raise StateError(
            f"the store key {store_key_file} has {len(store_key)} bytes instead of {SECRET_BYTES}; bring back the "
            f"right file (a new one is made with: head -c {SECRET_BYTES} /dev/urandom)"
        )
    return Secrets(store_key, load_pepper(pepper_file), store_key_file, pepper_file)


def load_pepper(path: Path) -> bytes:
    """The pepper in a file. Raises StateError if it is missing, open to others, or of an unsafe length."""
    pepper = read_private(path, "the key pepper")
    if not SECRET_BYTES <= len(pepper) <= MAX_PEPPER_BYTES:
        raise StateError(
            f"the key pepper {path} has {len(pepper)} bytes; it must have {SECRET_BYTES} to {MAX_PEPPER_BYTES}: "
            "bring back the right file"
        )
    return pepper


def _locate(default: Path, override: str | None) -> tuple[Path, bool]:
    """Where a secret lies, and whether it is ours to make."""
    return (Path(override), False) if override else (default, True)


def _create(path: Path) -> None:
    try:
        create_private(path, secrets.token_bytes(SECRET_BYTES))
    except OSError as error:
        raise StateError(f"cannot make {path}: {error.strerror}; check the folder's owner and free space") from error
