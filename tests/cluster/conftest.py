"""Tests on a cluster whose nodes run Pods for real: kind, minikube, a cloud's. They make namespaces, and remove them.

SWELL_TEST_CLUSTER     a kubeconfig that may do everything there
SWELL_TEST_REGISTRY    what stands before the images' names, such as registry.example/team/ (default: nothing, as for
                       images that `make images` built and `kind load docker-image` put on the nodes)
SWELL_TEST_MODELS      a folder of every node that has small.gguf in it (default: each Pod fetches the small model)
SWELL_TEST_DATABASE    postgresql://… as Pods reach it, empty; without it the test of several servers is skipped
SWELL_TEST_CLASS       a StorageClass for claims (default: the cluster's)
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "kubernetes"))  # the chart
sys.path.append(str(Path(__file__).parents[1] / "containers"))  # clients that never retry

from cluster_site import ClusterSite, Settings

NO_CLUSTER = (
    "no cluster to run on: set SWELL_TEST_CLUSTER to a kubeconfig of one whose nodes have the images "
    "(tests/cluster/conftest.py says what else may be set)"
)


@pytest.fixture(scope="session")
def cluster_settings() -> Settings:
    """Where and with what."""
    kubeconfig = os.environ.get("SWELL_TEST_CLUSTER", "")
    if not kubeconfig:
        pytest.skip(NO_CLUSTER)
    if shutil.which("kubectl") is None:
        pytest.skip(f"{NO_CLUSTER}; kubectl is not installed")
    return Settings(
        kubeconfig=kubeconfig,
        registry=os.environ.get("SWELL_TEST_REGISTRY", ""),
        models=os.environ.get("SWELL_TEST_MODELS", ""),
        database=os.environ.get("SWELL_TEST_DATABASE", ""),
        storage_class=os.environ.get("SWELL_TEST_CLASS", ""),
    )


@pytest.fixture
def site(cluster_settings: Settings, tmp_path: Path) -> Iterator[ClusterSite]:
    """Two namespaces and a Pod of clients."""
    with ClusterSite(cluster_settings, tmp_path) as site:
        yield site
