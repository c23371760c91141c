"""The whole file, checked as one."""

from collections.abc import Iterator
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from swell.spec.aliases import AliasTable
from swell.spec.base import Conflict, SpecModel, is_loopback
from swell.spec.models import MAX_MODELS, ModelSpec
from swell.spec.providers import ProviderSpec
from swell.spec.server import ServerSpec
from swell.spec.tenants import MAX_TENANTS, TenantSpec


class Spec(SpecModel):
    """Everything the user declares in one file."""

    aliases: ClassVar[AliasTable] = {"model_list": ("models",)}

    models: Annotated[tuple[ModelSpec, ...], Field(max_length=MAX_MODELS)]
    tenants: Annotated[tuple[TenantSpec, ...], Field(max_length=MAX_TENANTS)] = ()
    providers: Annotated[tuple[ProviderSpec, ...], Field(max_length=1)] = (ProviderSpec(name="here"),)
    server: ServerSpec = ServerSpec()

    def conflicts(self) -> list[Conflict]:
        empty = [
            (
                field,
                "is empty; name at least one, or leave it out"
                if field == "providers"
                else "is empty; name at least one",
            )
            for field in ("models", "providers")
            if not getattr(self, field)
        ]
        return [
            *empty,
            *_repeated("model", self._served_names()),
            *_repeated("tenant", ((f"tenants[{i}].name", tenant.name) for i, tenant in enumerate(self.tenants))),
            *self._exposed_keys(),
        ]

    def _served_names(self) -> Iterator[tuple[str, str]]:
        for i, model in enumerate(self.models):
            yield f"models[{i}].name", model.name
            for adapter in model.lora:
                yield f"models[{i}].lora.{adapter.name}", adapter.name

    def _exposed_keys(self) -> Iterator[Conflict]:
        if self.server.allow_plaintext_off_loopback:
            return
        for i, model in enumerate(self.models):
            if not (model.api_key_env or model.api_key_file):
                continue
            for j, endpoint in enumerate(model.endpoints):
                parts = urlsplit(endpoint)
                if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
                    advice = "use https, or set server.allow_plaintext_off_loopback: true"
                    yield f"models[{i}].endpoints[{j}]", f"{endpoint} would be sent its key unencrypted; {advice}"


def _repeated(kind: str, named: Iterator[tuple[str, str]]) -> Iterator[Conflict]:
    first: dict[str, str] = {}
    for path, name in named:
        if name in first:
            yield path, f"{name!r} is already the name of the {kind} at {first[name]}; each needs its own"
        first.setdefault(name, path)
