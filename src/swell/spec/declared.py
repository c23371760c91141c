"""What shall be served: the file's spec and the resources beside it, as one spec, checked by the file's own parser.

A resource that is wrong is refused by itself, with its reason, and everything else is served. What is wrong with it
alone is found first; what is wrong with it beside the others is found by its path in what the parser says of the whole.
Where no path tells, the one with which the whole is wrong and without which it is not is refused; what is older stays.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from swell.errors import SpecError
from swell.spec.custom_resources import KINDS, MODELS, SERVER_SECRETS, TENANTS, TYPES
from swell.spec.document import Spec
from swell.spec.models import MAX_MODELS
from swell.spec.parse import check_spec
from swell.spec.problems import SpecRefusedError, problems_of
from swell.spec.tenants import MAX_TENANTS
from swell.spec.yaml_text import WrittenFloat

MAX_CHECKS: Final = 500  # of file and resources as a whole; who has not been judged by then is refused
MAX_PROBLEMS: Final = 5  # of one resource that are told

NAME_TAKEN, INVALID, UNAVAILABLE = "NameTaken", "Invalid", "Unavailable"
_LIMITS: Final = {MODELS: MAX_MODELS, TENANTS: MAX_TENANTS}
_PLACE: Final = re.compile(rf"({MODELS}|{TENANTS})\[(\d+)\]\.?")

Key = tuple[str, str]
"""A resource: `models` or `tenants`, and its name in the cluster."""


class Declared(msgspec.Struct, frozen=True, order=True):
    """A resource as it was read. In the order of age."""

    created: str  # as the cluster writes times: in their order
    plural: str
    name: str
    uid: str
    generation: int
    content: str  # its spec, as JSON

    @property
    def key(self) -> Key:
        """What tells it from others."""
        return self.plural, self.name


@dataclass(frozen=True)
class Refusal:
    """Why a resource is not served. `reason` is one word for programs."""

    reason: str
    message: str


@dataclass(frozen=True)
class Wanted:
    """A spec, the file's part of it, and what became of each resource."""

    spec: Spec
    of_file: Spec
    declared: tuple[Declared, ...] = ()
    refusals: Mapping[Key, Refusal] = field(default_factory=dict)
    served: Mapping[Key, str] = field(default_factory=dict)  # names as clients know them, of those that are accepted

    def resource_of(self, model: str) -> Key | None:
        """Whose the model of that name is; None where it is the file's."""
        return next((key for key, name in self.served.items() if key[0] == MODELS and name == model), None)


def merge(
    of_file: Spec,
    declared: Sequence[Declared],
    *,
    refused: Mapping[Key, Refusal] | None = None,
    check: Callable[[Spec], None] = lambda spec: None,
) -> Wanted:
    """The file with every resource that can be served beside it. `of_file` must be fit to be served by itself.

    `refused` are known to be unfit already. `check` is what a spec must hold beyond being one: it raises SpecError.
    """
    merging = _Merging(of_file, sorted(declared), dict(refused or {}), check)
    return merging.run()


class _Merging:
    """Takes resources in halves: a half with which all is well is taken at once, one by itself is refused."""

    def __init__(
        self, of_file: Spec, declared: list[Declared], refused: dict[Key, Refusal], check: Callable[[Spec], None]
    ) -> None:
        self._of_file = of_file
        self._declared = declared
        self._check = check
        self._refusals = refused
        self._values: dict[Key, Any] = {}
        self._names: dict[Key, str] = {}
        self._owners: dict[tuple[str, str], str] = {}  # of names as clients know them: who of the resources has it
        self._accepted: list[Declared] = []
        self._checks = 0

    def run(self) -> Wanted:
        for plural in KINDS:
            self._owners |= {(plural, each.name): "" for each in getattr(self._of_file, plural)}
        for each in self._declared:
            if each.key not in self._refusals:
                self._look_at(each)
        self._accept([each for each in self._declared if each.key not in self._refusals])
        self._accepted = [each for each in self._accepted if each.key not in self._refusals]
        spec = self._whole(self._accepted)
        if not isinstance(spec, Spec):  # what was refused late was needed by others
            self._refuse(self._accepted, f"cannot be served beside the others: {spec.message}")
            spec, self._accepted = self._of_file, []
        names = {each.key: self._names[each.key] for each in self._accepted}
        return Wanted(spec, self._of_file, tuple(self._declared), self._refusals, names)

    def _look_at(self, item: Declared) -> None:
        """See what is wrong with a resource by itself, and whether its name is free."""
        values, problem = _values_of(item)
        if problem is None:
            try:
                checked: Any = TYPES[item.plural].model_validate(values)
                problem = self._own(item, checked.name)
            except ValidationError as error:
                found = problems_of(error, TYPES[item.plural])
                problem = Refusal(INVALID, _sentences([_sentence(each.path, each.text) for each in found]))
        if problem is None:
            self._values[item.key], self._names[item.key] = values, checked.name
        else:
            self._refusals[item.key] = problem

    def _own(self, item: Declared, name: str) -> Refusal | None:
        kind, owner = KINDS[item.plural], self._owners.get((item.plural, name))
        if owner == "":
            return Refusal(NAME_TAKEN, f"{name!r} is a {kind.lower()} of the server's file; choose another name")
        if owner is not None:
            return Refusal(NAME_TAKEN, f"{name!r} is the name of {kind} {owner}, which is older; choose another")
        if sum(plural == item.plural for plural, _ in self._owners) >= _LIMITS[item.plural]:
            return Refusal(INVALID, f"there are {_LIMITS[item.plural]} {item.plural} already, which is the most")
        self._owners[item.plural, name] = item.name
        return None

    def _accept(self, group: list[Declared]) -> None:
        """Accept of these all with whom everything is well, and refuse the others."""
        while group:
            if self._checks >= MAX_CHECKS:
                self._refuse(group, "too much is wrong with the resources beside it to tell whether this one is well")
                return
            found = self._whole([*self._accepted, *group])
            if isinstance(found, Spec):
                self._accepted += group
                return
            if self._blame(found, [*self._accepted, *group]):
                self._accepted = [each for each in self._accepted if each.key not in self._refusals]
                group = [each for each in group if each.key not in self._refusals]
            elif len(group) == 1:
                self._refuse(group, f"cannot be served beside the others: {found.message}")
                return
            else:
                self._accept(group[: len(group) // 2])
                group = group[len(group) // 2 :]

    def _refuse(self, group: Sequence[Declared], message: str) -> None:
        for each in group:
            self._refusals[each.key] = Refusal(INVALID, message)

    def _whole(self, items: Sequence[Declared]) -> Spec | SpecError:
        """The file with these resources, or what is wrong with that."""
        if not items:
            return self._of_file
        self._checks += 1
        values: dict[str, Any] = {name: getattr(self._of_file, name) for name in Spec.model_fields}
        for plural in KINDS:
            added = [self._values[each.key] for each in items if each.plural == plural]
            values[plural] = [*values[plural], *added]
        try:
            spec = check_spec(values, origin="the file with the resources")
            self._check(spec)
        except SpecError as error:
            return error
        return spec

    def _blame(self, error: SpecError, items: Sequence[Declared]) -> bool:
        """Refuse who is named by a path; whether anybody is."""
        by_place: dict[tuple[str, int], Declared] = {}
        for plural in KINDS:
            offset = len(getattr(self._of_file, plural))
            own = [each for each in items if each.plural == plural]
            by_place |= {(plural, offset + i): each for i, each in enumerate(own)}
        found: dict[Key, list[str]] = {}
        for path, text in _problems(error):
            match = _PLACE.match(path)
            item = by_place.get((match[1], int(match[2]))) if match else None
            if match and item is not None:
                found.setdefault(item.key, []).append(_sentence(path[match.end() :], text))
        for key, sentences in found.items():
            self._refusals[key] = Refusal(INVALID, _sentences(sentences))
        return bool(found)


def _values_of(item: Declared) -> tuple[Any, Refusal | None]:
    try:
        values = _DECODER.decode(item.content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None, Refusal(INVALID, "spec: cannot be read")
    if not isinstance(values, dict):
        return None, Refusal(INVALID, "spec: must be a mapping of fields")
    secret = next((name for name in SERVER_SECRETS if item.plural == MODELS and values.get(name) is not None), "")
    if secret:
        advice = "a resource may not name one; declare the model in the server's file"
        return None, Refusal(INVALID, f"spec.{secret}: names a secret of the server's, and {advice}")
    aliases = [alias for alias, real in TYPES[item.plural].aliases.items() if real == ("name",)]
    if not any(values.get(name) is not None for name in ("name", *aliases)):
        values["name"] = item.name
    return values, None


def _written(text: str) -> WrittenFloat:
    number = WrittenFloat(text)
    number.text = text
    return number


_DECODER: Final = msgspec.json.Decoder(float_hook=_written)


def _problems(error: SpecError) -> list[tuple[str, str]]:
    if isinstance(error, SpecRefusedError):
        return [(each.path, each.text) for each in error.problems]
    return [(error.path, error.message.removeprefix(f"{error.path}: "))]


def _sentence(path: str, text: str) -> str:
    return f"spec.{path}: {text}" if path else f"spec: {text}"


def _sentences(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - MAX_PROBLEMS} more" if len(texts) > MAX_PROBLEMS else ""
    return "; ".join(texts[:MAX_PROBLEMS]) + more
