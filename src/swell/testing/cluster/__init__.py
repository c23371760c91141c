"""A Kubernetes cluster of make-believe: an API with watches and server-side apply, and small controllers beneath it.

`FakeCluster` is what survives a server, `Controllers` what Kubernetes does by itself, `ApiServer` its HTTP. Time is the
injected clock's. What is left out is said where it is: rolling updates, quotas, admission, all but four kinds' rules.
"""

from swell.testing.cluster.cert_manager import CertManager
from swell.testing.cluster.controllers import Controllers
from swell.testing.cluster.http import ApiServer
from swell.testing.cluster.objects import FakeCluster, Refused

__all__ = ["ApiServer", "CertManager", "Controllers", "FakeCluster", "Refused"]
