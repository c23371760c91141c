"""The whole file, checked as one."""

from collections.abc import Iterator
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from swell.spec.alerts import AlertsSpec
from swell.spec.aliases import AliasTable
from swell.spec.base import Conflict, SpecModel, is_loopback
from swell.spec.budgets import BudgetSpec, OrganisationSpec
from swell.spec.models import MAX_MODELS, Engine, ModelSpec
from swell.spec.prices import POSTED, ModelPrice, Prices
from swell.spec.providers import MAX_PROVIDERS, AnyPlace, ContainerSpec, KubernetesSpec, ProcessSpec, ProviderSpec
from swell.spec.server import ServerSpec
from swell.spec.steps import CHEAPER_VARIANT
from swell.spec.tenants import MAX_TENANTS, TenantSpec

_MAX_REASONS = 3  # models of which it is said why they cannot be reviewed
# How llama.cpp and vLLM are told to (--ssl-cert-file, --ssl-certfile, --ssl_certfile and more), or to listen elsewhere.
_ENGINE_TLS = ("--ssl-", "--uds")
_ENGINE_FILE = "--config"  # of vLLM: more arguments. What Swell says itself (host, port, model) stands after and wins


class Spec(SpecModel):
    """Everything the user declares in one file."""

    aliases: ClassVar[AliasTable] = {"model_list": ("models",)}

    models: Annotated[tuple[ModelSpec, ...], Field(max_length=MAX_MODELS)]
    tenants: Annotated[tuple[TenantSpec, ...], Field(max_length=MAX_TENANTS)] = ()
    organisation: OrganisationSpec = Field(
        default=OrganisationSpec(), description="Everybody, and what they may spend."
    )
    prices: Prices = Field(
        default={}, validate_default=True, description="What tokens of a model are charged at, by its name."
    )
    alerts: AlertsSpec = Field(default=AlertsSpec(), description="Where alerts go, and whether a weekly review does.")
    providers: Annotated[tuple[ProviderSpec, ...], Field(max_length=MAX_PROVIDERS)] = Field(
        default=(ProcessSpec(name="here"),), description="Where replicas run; models that name none use the first."
    )
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
            if not getattr(self, field) and not (field == "models" and self.server.custom_resources is not None)
        ]
        return [
            *empty,
            *_repeated("model", self._served_names()),
            *_repeated("tenant", ((f"tenants[{i}].name", tenant.name) for i, tenant in enumerate(self.tenants))),
            *_repeated("provider", ((f"providers[{i}].name", place.name) for i, place in enumerate(self.providers))),
            *self._placeless(),
            *self._crowded(),
            *self._unheard(),
            *self._exposed_keys(),
            *self._priceless(),
            *self._costless(),
            *self._variants(),
            *self._unpostable(),
            *self._unreviewable(),
        ]

    def _served_names(self) -> Iterator[tuple[str, str]]:
        for i, model in enumerate(self.models):
            yield f"models[{i}].name", model.name
            for adapter in model.lora:
                yield f"models[{i}].lora.{adapter.name}", adapter.name

    def price_of(self, model: str) -> ModelPrice:
        """What the tokens of a served model or adapter are charged at; an adapter's default is its model's."""
        if model in self.prices:
            return self.prices[model]
        base = next((m.name for m in self.models if any(adapter.name == model for adapter in m.lora)), "")
        return self.prices.get(base, ModelPrice())

    def place_of(self, model: ModelSpec) -> AnyPlace:
        """Where the replicas of a model run."""
        return next((place for place in self.providers if place.name == model.provider), self.providers[0])

    def _placeless(self) -> Iterator[Conflict]:
        """Models whose place is none, or cannot run their engine."""
        names = [place.name for place in self.providers]
        for i, model in enumerate(self.models):
            if model.engine is Engine.EXTERNAL or not names:
                continue
            if model.provider is not None and model.provider not in names:
                problem = f"there is no provider {model.provider!r}; name one of: {', '.join(names)}"
                yield f"models[{i}].provider", problem
                continue
            place = self.place_of(model)
            if isinstance(place, ContainerSpec | KubernetesSpec) and model.engine.value not in place.images:
                path = f"providers[{names.index(place.name)}].images"
                yield path, f"has no image for engine {model.engine}, which models[{i}] ({model.name}) needs"
            if isinstance(place, KubernetesSpec) and place.tls is not None:
                yield from _doubly_secured(i, model, place)
            if model.nodes > 1 and not isinstance(place, KubernetesSpec):
                problem = f"is {model.nodes}, and {place.name} (kind {place.kind}) is one machine"
                yield f"models[{i}].nodes", f"{problem}; name a provider of kind kubernetes, or leave it out"
            if model.nodes > 1 and isinstance(place, KubernetesSpec) and place.tls is not None:
                problem = f"is {model.nodes}, and tls of {place.name} does not reach between nodes"
                yield f"models[{i}].nodes", f"{problem}; use a provider without tls for it"

    def _crowded(self) -> Iterator[Conflict]:
        """Places of one namespace, which would take each other's Pods for what a server before left behind."""
        first: dict[tuple[str | None, ...], str] = {}
        for i, place in enumerate(self.providers):
            if isinstance(place, KubernetesSpec):
                where = place.kubeconfig, place.context, place.namespace
                if where in first:
                    problem = f"is where the Pods of {first[where]} are as well; give each provider one of its own"
                    yield f"providers[{i}].namespace", problem
                first.setdefault(where, place.name)

    def _unheard(self) -> Iterator[Conflict]:
        """Models of which somebody else runs as many replicas as Swell decides, while nobody is told how many."""
        if self.server.external_scaler is None:
            for i, model in enumerate(self.models):
                if model.is_advised:
                    advice = "let KEDA ask with server: {external_scaler: {}}, or leave replicas out"
                    yield (
                        f"models[{i}].replicas",
                        f"leaves a choice, and nobody could ask how many Swell wants; {advice}",
                    )

    def _budgets(self) -> Iterator[tuple[str, BudgetSpec]]:
        owners = [("organisation", self.organisation.budget)]
        owners += [(f"tenants[{i}]", tenant.budget) for i, tenant in enumerate(self.tenants)]
        for path, budgets in owners:
            for i, budget in enumerate(budgets):
                yield f"{path}.budget" if len(budgets) == 1 else f"{path}.budget[{i}]", budget

    def _priceless(self) -> Iterator[Conflict]:
        served = {name for _, name in self._served_names()}
        for name in self.prices:
            if name not in served and self.server.custom_resources is None:  # a resource's model may come and go
                yield f"prices.{name}", f"there is no model {name!r}; name one of: {', '.join(sorted(served))}"
        for path, budget in self._budgets():
            if budget.model and budget.model not in served:
                yield f"{path}.model", f"there is no model {budget.model!r}; name one of: {', '.join(sorted(served))}"
                continue
            free = [
                name for name in ((budget.model,) if budget.model else sorted(served)) if self.price_of(name).is_free
            ]
            if free and (budget.model or len(free) == len(served)):
                yield path, f"has nothing to count, for {', '.join(free)} costs nothing; set it in prices"

    def _costless(self) -> Iterator[Conflict]:
        """An organisation's budget of what replicas cost needs to know what each costs."""
        if not self.organisation.infrastructure_budget:
            return
        ordered = [(i, model) for i, model in enumerate(self.models) if model.is_ordered]
        if not ordered:
            problem = "has nothing to count: Swell starts no replica of any model; leave it out"
            yield "organisation.infrastructure_budget", problem
        for i, model in ordered:
            if not model.usd_per_replica_hour and not model.infrastructure_budget:
                counts = "organisation.infrastructure_budget counts it"
                yield f"models[{i}].usd_per_replica_hour", f"{model.priceless}; {counts}"

    def _variants(self) -> Iterator[Conflict]:
        """Variants that are none. Each must be cheaper than the one before, so there are no circles."""
        served = {name for _, name in self._served_names()}
        for i, model in enumerate(self.models):
            path, variant = f"models[{i}].cheaper_variant", model.cheaper_variant
            if variant is None:
                continue
            if variant not in served:
                yield path, f"there is no model {variant!r}; name one of: {', '.join(sorted(served - {model.name}))}"
                continue
            if self.price_of(model.name).posted or self.price_of(variant).posted:
                yield path, "needs fixed rates of both models: nobody knows ahead which posted rate will be lower"
                continue
            rates, cheaper = self.price_of(model.name).rates, self.price_of(variant).rates
            if rates == cheaper or any(new > old for old, new in zip(rates, cheaper, strict=True)):
                yield path, f"{variant!r} is not cheaper than {model.name!r}; name one that is, or set both in prices"
        having = {model.name for model in self.models if model.cheaper_variant}
        for path, budget in self._budgets():
            wants = any(step.name == CHEAPER_VARIANT for step in budget.steps)
            if wants and not (budget.model in having if budget.model else having):
                whose = f"model {budget.model!r}" if budget.model else "no model"
                does = "names none" if budget.model else "names one"
                yield f"{path}.at_limit", f"cheaper_variant has nothing to go to: {whose} {does} in cheaper_variant"

    def _unpostable(self) -> Iterator[Conflict]:
        models = {model.name: model for model in self.models}
        for name, price in self.prices.items():
            if price.posted is None:
                continue
            path, model = f"prices.{name}.{POSTED}", models.get(name)
            if model is None:  # an adapter; what there is no model of is told elsewhere
                problem = "is of an adapter, which costs what its model costs; put it under the model's name"
                if any(adapter.name == name for each in self.models for adapter in each.lora):
                    yield path, problem
            elif model.engine is Engine.EXTERNAL:
                yield (
                    path,
                    "needs replicas that Swell starts; what endpoints of others cost nobody knows: fix its rates",
                )
            elif not model.usd_per_replica_hour:
                yield path, f"needs to know what a replica costs; set usd_per_replica_hour of the model {name!r}"

    def _unreviewable(self) -> Iterator[Conflict]:
        """A weekly review of models of which none has machines that could be others."""
        if self.alerts.review is None or any(model.why_not_reviewed == "" for model in self.models):
            return
        reasons = "; ".join(f"{model.name}: {model.why_not_reviewed}" for model in self.models[:_MAX_REASONS])
        yield "alerts.review", f"has nothing to review ({reasons}); leave it out until there is"

    @property
    def review_zone(self) -> str:
        """The time zone of the weekly review: its own, else that of what the organisation may spend, else UTC."""
        review = self.alerts.review
        if review is not None and review.time_zone is not None:
            return review.time_zone
        ours = self.organisation
        calendars = [budget.time_zone for budget in ours.budget if not budget.is_rolling]
        calendars += [budget.time_zone for budget in ours.infrastructure_budget]
        return calendars[0] if calendars else "UTC"

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


def _doubly_secured(index: int, model: ModelSpec, place: KubernetesSpec) -> Iterator[Conflict]:
    """An engine that spoke TLS behind what ends it in its Pod would be understood by nobody."""
    for number, word in enumerate(model.engine_args):
        if word.replace("_", "-").startswith(_ENGINE_TLS):
            problem = f"{word} has the engine listen otherwise than tls of {place.name} expects; keep one of them"
            yield f"models[{index}].engine_args[{number}]", problem
        if word.partition("=")[0] == _ENGINE_FILE:
            problem = (
                f"{word} names a file that nobody reads here and that may say (ssl-…, uds) that the engine listens"
            )
            advice = f"otherwise than tls of {place.name} expects; write what it says in engine_args, or leave tls out"
            yield f"models[{index}].engine_args[{number}]", f"{problem} {advice}"


def _repeated(kind: str, named: Iterator[tuple[str, str]]) -> Iterator[Conflict]:
    first: dict[str, str] = {}
    for path, name in named:
        if name in first:
            yield path, f"{name!r} is already the name of the {kind} at {first[name]}; each needs its own"
        first.setdefault(name, path)
