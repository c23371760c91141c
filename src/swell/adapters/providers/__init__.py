"""Providers, by the kind used in the spec. To add one: copy a sibling and list it here and in `swell.spec`."""

from collections.abc import Callable, Mapping

from swell.adapters.providers.external import ExternalProvider
from swell.adapters.providers.process import ProcessProvider
from swell.ports.provider import Provider

PROVIDERS: Mapping[str, Callable[[], Provider]] = {
    "process": ProcessProvider,
    "external": ExternalProvider,
}
