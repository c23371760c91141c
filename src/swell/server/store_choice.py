"""Which store belongs to a state directory: its encrypted file, or a Postgres database.

The environment goes before the spec. Commands that run without a server have no spec, so a server leaves in
`store.json` what it went by: the spec's entry, which holds no secret, or the mere fact that it was the environment.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swell.errors import StateError
from swell.security.private_files import replace_private
from swell.spec.store import StoreSpec

URL_VARIABLE, URL_FILE_VARIABLE = "SWELL_STORE_URL", "SWELL_STORE_URL_FILE"
NOTE = "store.json"
MAX_SECRET_BYTES = 8192


@dataclass(frozen=True)
class PostgresChoice:
    """A Postgres database. Both may hold secrets, so neither is in `repr`."""

    url: str = field(repr=False)
    password: str | None = field(default=None, repr=False)


def remember_store(root: Path, spec: StoreSpec | None, environ: Mapping[str, str]) -> None:
    """Keep what the server goes by for commands that run without one."""
    note = root / NOTE
    if environ.get(URL_VARIABLE) or environ.get(URL_FILE_VARIABLE):
        replace_private(note, json.dumps({"environment": True}).encode())
    elif spec is not None:
        replace_private(note, json.dumps({"spec": spec.model_dump(mode="json", exclude_none=True)}).encode())
    else:
        note.unlink(missing_ok=True)


def is_shared(spec: StoreSpec | None, environ: Mapping[str, str]) -> bool:
    """Whether servers on several machines can use what a server with this entry goes by."""
    return spec is not None or bool(environ.get(URL_VARIABLE) or environ.get(URL_FILE_VARIABLE))


def chosen_store(root: Path, environ: Mapping[str, str]) -> PostgresChoice | None:
    """The database, or None for the file. Raises StateError where a secret cannot be had, without repeating one."""
    url, file = environ.get(URL_VARIABLE), environ.get(URL_FILE_VARIABLE)
    if url and file:
        raise StateError(f"{URL_VARIABLE} and {URL_FILE_VARIABLE} are both set; keep one of them")
    if url or file:
        return PostgresChoice((url or _read(Path(file or ""), "URL")).strip())
    noted = _noted(root / NOTE)
    if noted is None:
        return None
    if noted.password_env is not None:
        password = environ.get(noted.password_env, "").strip()
        if not password:
            raise StateError(f"the environment variable {noted.password_env} holds no password of the store; set it")
        return PostgresChoice(noted.url, password)
    return PostgresChoice(noted.url, _read(noted.password_file, "password") if noted.password_file else None)


def _noted(note: Path) -> StoreSpec | None:
    try:
        known = json.loads(note.read_bytes())
        if "environment" not in known:
            return StoreSpec.model_validate(known["spec"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{note} cannot be read; start the server again with swell up, which writes it") from error
    raise StateError(
        f"the server that ran here found its store by {URL_VARIABLE} or {URL_FILE_VARIABLE}, and neither is set now; "
        "set it as it was for the server"
    )


def _read(path: str | Path, what: str) -> str:
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_SECRET_BYTES).decode().strip()
    except OSError as error:
        raise StateError(f"the file {path} with the store's {what} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise StateError(
            f"the file {path} with the store's {what} holds something else; put the {what} there"
        ) from None
    if not text:
        raise StateError(f"the file {path} is empty; put the store's {what} there")
    return text
