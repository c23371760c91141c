"""What `swell up --ha` asks of a spec: that all which one server starts can be taken over by another (RFC 7)."""

from collections.abc import Mapping

from swell.errors import SpecError
from swell.server.store_choice import URL_VARIABLE, is_shared
from swell.spec import Engine, ProcessSpec, Spec


def require_movable(spec: Spec, environ: Mapping[str, str]) -> None:
    """Raises SpecError where the store is a file, or replicas would end with the server's machine."""
    if not is_shared(spec.server.store, environ):
        raise SpecError(
            "server.store",
            "is a file, which one machine has; with --ha give the url of a Postgres database that all servers use "
            f"(or set {URL_VARIABLE})",
        )
    for i, model in enumerate(spec.models):
        place = spec.place_of(model)
        if model.engine is not Engine.EXTERNAL and isinstance(place, ProcessSpec):
            raise SpecError(
                f"models[{i}].provider",
                f"is {place.name}, whose replicas are processes that end with the server's machine; with --ha name "
                "one of kind container or kubernetes, or route to endpoints with engine external",
            )
