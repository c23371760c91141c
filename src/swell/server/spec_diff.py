"""What is different between two specs, path by path: what `swell diff` shows and `swell apply` changes. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from swell.errors import UserError
from swell.spec import Spec

MAX_SHOWN = 200  # characters of a value

_ABSENT: Any = object()


class Difference(msgspec.Struct, frozen=True):
    """One value that differs. None: it is not there before, or not any more."""

    path: str  # such as `models[chat].replicas.max`
    before: str | None
    after: str | None


def differences(before: Spec, after: Spec) -> list[Difference]:
    """In the order of the new file, then what is gone. Lists of named things go by their names, not by their places."""
    return list(_compare("", before.model_dump(mode="json"), after.model_dump(mode="json")))


def check_change(before: Spec, after: Spec) -> None:
    """Raise UserError for a change that a running server cannot make."""
    if before.server.store != after.server.store:
        raise UserError(
            "server.store: a running server cannot change its store; stop it (swell down) and start it with the file"
        )
    if before.server.custom_resources != after.server.custom_resources:
        raise UserError(
            "server.custom_resources: a running server cannot change where it reads them; stop it (swell down) and "
            "start it with the file"
        )


def _compare(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if before == after:
        return
    if before is _ABSENT or after is _ABSENT:
        yield Difference(path, _text(before), _text(after))
        return
    old, new = _entries(before), _entries(after)
    if old is None or new is None:
        yield Difference(path, _text(before), _text(after))
        return
    for key in [*new, *(key for key in old if key not in new)]:
        yield from _compare(_joined(path, key), old.get(key, _ABSENT), new.get(key, _ABSENT))


def _entries(value: Any) -> dict[str, Any] | None:
    """A mapping's fields, or a list's items by `[name]`; None for what is shown as a whole."""
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        named = {f"[{item['name']}]": item for item in value if isinstance(item, Mapping) and item.get("name")}
        return named if len(named) == len(value) else None
    return None


def _joined(path: str, key: str) -> str:
    return f"{path}{key}" if key.startswith("[") or not path else f"{path}.{key}"


def _text(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    if isinstance(value, Mapping) and value.get("name"):  # a new model's defaults are no news
        return str(value["name"])
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
