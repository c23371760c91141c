"""Prints the path of the small model, fetched through Swell's own cache where it is not there yet."""

import os

from swell.adapters.sources import SOURCES, ModelCache, default_cache_folder
from swell.spec.default import DEFAULT_SHA256, DEFAULT_SOURCE

if __name__ == "__main__":
    cache = ModelCache(default_cache_folder(os.environ), SOURCES)
    print(cache.ensure(DEFAULT_SOURCE, sha256=DEFAULT_SHA256).path)
