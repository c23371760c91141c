"""Providers, by the kind used in the spec. To add one: copy a sibling, list it here and in `swell.spec.providers`."""

from collections.abc import Mapping

from swell.adapters.providers.container import ContainerProvider
from swell.adapters.providers.external import ExternalProvider
from swell.adapters.providers.process import ProcessProvider
from swell.ports.provider import Provider

PROVIDERS: Mapping[str, type[Provider]] = {
    "process": ProcessProvider,
    "container": ContainerProvider,
    "external": ExternalProvider,
}
