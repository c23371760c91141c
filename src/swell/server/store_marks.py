"""Whose a shared store is: every server that uses it must have the same pepper, and be of the same installation.

With another pepper no key would be found, and replicas would be asked for keys that they do not know. With another
installation's id, what one server starts in a cluster would be nothing to the next. So both are marked in the store: a
digest of the pepper, which tells nothing of it, and the id itself, which the first server brings and others take over.
"""

import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from swell.errors import StateError
from swell.ports.store import Store
from swell.security.secrets import PEPPER_VARIABLE
from swell.server.state_directory import StateDirectory

DIGITS = 16  # of an installation's id
PEPPER, INSTALLATION = "pepper", "installation"
PLACE = "answered: "  # before a place's name
_LABEL = b"swell: the pepper of a store"
_HALF, _WHOLE = 2**63, 2**64  # a mark is a signed number of 64 bits, an id an unsigned one


def pepper_mark(pepper: bytes) -> int:
    """What tells a pepper from others."""
    return int.from_bytes(hmac.digest(pepper, _LABEL, "sha256")[:8]) >> 1


def check(store: Store, state: StateDirectory, pepper: bytes, file: Path) -> None:
    """Take over the installation's id. Raises StateError where the store is marked as another's."""
    _check_pepper(store.mark(PEPPER), pepper, file)
    known = store.mark(INSTALLATION)
    if known is not None and not state.has_installation():
        state.keep_installation(_as_id(known))
    _check_installation(known, state)


def _check_pepper(known: int | None, pepper: bytes, file: Path) -> None:
    if known is not None and known != pepper_mark(pepper):
        raise StateError(
            f"the key pepper {file} is not the one that the keys in this store were made with; bring the file "
            "secrets/pepper of the first server's state directory to this machine, and name it in "
            f"{PEPPER_VARIABLE}"
        )


def check_marks(marks: Mapping[str, int], state: StateDirectory, pepper: bytes, file: Path) -> None:
    """Raises StateError where a server with this state directory could not use the store."""
    _check_pepper(marks.get(PEPPER), pepper, file)
    _check_installation(marks.get(INSTALLATION), state)


def join(store: Store, state: StateDirectory, pepper: bytes, file: Path) -> None:
    """The same, and mark a store that nobody has marked."""
    check(store, state, pepper, file)
    store.set_mark(PEPPER, pepper_mark(pepper))
    store.set_mark(INSTALLATION, _as_mark(state.installation()))


def answered_places(store: Store, names: Iterable[str]) -> set[str]:
    """Those of the places that some server has reached."""
    return {name for name in names if store.mark(f"{PLACE}{name}") is not None}


def mark_answered(store: Store, names: Iterable[str]) -> None:
    """Some server has reached these places."""
    for name in names:
        store.set_mark(f"{PLACE}{name}", 1)


def _check_installation(known: int | None, state: StateDirectory) -> None:
    if known is None or not state.has_installation() or state.installation() == _as_id(known):
        return
    raise StateError(
        f"the state directory {state.root} is of another installation than the store: {state.installation()} and "
        f"{_as_id(known)}, by which containers and Pods are known; give each a store of its own, or, if nothing that "
        f"this one started runs any more, remove {state.installation_file}"
    )


def _as_mark(installation: str) -> int:
    try:
        number = int(installation, 16)
    except ValueError:
        number = _WHOLE
    if len(installation) != DIGITS or not 0 <= number < _WHOLE:
        raise StateError(f"the installation's id {installation!r} is none that Swell made; bring the file back")
    return number - _WHOLE if number >= _HALF else number


def _as_id(mark: int) -> str:
    return f"{mark % _WHOLE:016x}"
