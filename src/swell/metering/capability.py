"""What is known of one replica of a model: the latency profile that fits it, and what is asked of it. Pure."""

from collections.abc import Mapping

from swell.errors import UserError
from swell.metering.attribution import Capability
from swell.spec import ModelSpec
from swell.state import catalogue
from swell.state.scaling import LatencyProfile, Objective


def capability_of(
    model: str, declared: ModelSpec | None, accelerator: str, own: Mapping[str, LatencyProfile]
) -> Capability:
    """The model's profile and objective, as far as they are known. UserError where two profiles would do.

    With an accelerator, profiles that ship are looked at as well as one's `own`; without, only those.
    """
    names = {catalogue.plain_model(name) for name in (model, (declared and declared.source) or model)}
    known = {**catalogue.profiles(), **own} if accelerator else own
    fits = [profile for profile in known.values() if catalogue.plain_model(profile.model) in names]
    if accelerator:
        fits = [profile for profile in fits if profile.name.rpartition("@")[2].casefold() == accelerator.casefold()]
    if len(fits) > 1:
        listed = ", ".join(sorted(profile.name for profile in fits))
        raise UserError(f"several profiles fit {model}: {listed}; give --profiles a file with the one that holds here")
    objective = Objective()
    if declared is not None:
        wanted = declared.objectives
        objective = Objective(wanted.ttft_ms, wanted.itl_ms, wanted.attainment, wanted.ttft_ms_per_1k_prompt_tokens)
    return Capability(fits[0] if fits else None, objective)
