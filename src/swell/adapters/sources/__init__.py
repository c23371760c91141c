"""Model sources by address scheme, and the cache that keeps what they fetch.

To add a scheme: write a sibling that honours `swell.ports.model_source`, and name it here.
"""

from collections.abc import Mapping

from swell.adapters.sources.cache import LocalModel, ModelCache, default_cache_folder
from swell.adapters.sources.file import FileSource
from swell.adapters.sources.fsspec_source import FsspecSource
from swell.adapters.sources.hf import HfSource
from swell.adapters.sources.pypi import PypiSource
from swell.ports.model_source import ModelSource

SOURCES: Mapping[str, ModelSource] = {
    "file": FileSource(),
    "pypi": PypiSource(),
    "hf": HfSource(),
    "s3": FsspecSource(install_hint="pip install 'swell[aws]'"),
    "gs": FsspecSource(install_hint="pip install 'swell[gcp]'"),
}
"""By scheme; an address without one is a path and belongs to `file`."""

__all__ = ["SOURCES", "LocalModel", "ModelCache", "default_cache_folder"]
