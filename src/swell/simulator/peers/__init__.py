"""Autoscalers of other projects, re-implemented from their published rules to be compared with.

Each has its published defaults and one knob, the target that its user would turn. To add a peer: write a sibling with a
class of the shape of `base.Peer` and name it in `PEERS` and `KNOBS`.

All peers but SkyServe and llm-d scale the scenario's first pool. Limits of the re-implementation: a replica that
starts gives no metrics and is ready at once when it has started; metrics are sampled when a peer is asked; scaling
takes effect at once.
"""

from collections.abc import Callable, Mapping

from swell.ports.scaler import Scaler
from swell.simulator.peers.aibrix_apa import AibrixApa
from swell.simulator.peers.aibrix_kpa import AibrixKpa
from swell.simulator.peers.base import KnobRange
from swell.simulator.peers.dynamo import Dynamo, DynamoLoad
from swell.simulator.peers.hpa import Hpa
from swell.simulator.peers.keda import Keda
from swell.simulator.peers.knative import Knative
from swell.simulator.peers.llm_d import LlmD
from swell.simulator.peers.ray_serve import RayServe
from swell.simulator.peers.sageserve import SageServe, SageServeForecast
from swell.simulator.peers.skyserve import SkyServe
from swell.simulator.peers.static import Static

# Each is called with a scenario and the knob, None for the published default.
PEERS: Mapping[str, Callable[..., Scaler]] = {
    "hpa": Hpa,
    "keda": Keda,
    "knative": Knative,
    "ray-serve": RayServe,
    "aibrix-apa": AibrixApa,
    "aibrix-kpa": AibrixKpa,
    "skyserve": SkyServe,
    "dynamo": Dynamo,
    "dynamo-load": DynamoLoad,
    "llm-d": LlmD,
    "sageserve": SageServe,
    "sageserve-forecast": SageServeForecast,
    "static": Static,
}

KNOBS: Mapping[str, KnobRange] = {
    "hpa": KnobRange(0.25, 1024.0, False),  # requests in flight per pod
    "keda": KnobRange(0.01, 256.0, False),  # waiting requests per replica
    "knative": KnobRange(0.25, 1024.0, False),  # requests in the system per replica
    "ray-serve": KnobRange(0.25, 1024.0, False),  # ongoing requests per replica
    "aibrix-apa": KnobRange(0.002, 1.0, False),  # share of the KV cache
    "aibrix-kpa": KnobRange(0.002, 1.0, False),  # share of the KV cache
    "skyserve": KnobRange(0.005, 64.0, False),  # requests a second per replica
    "dynamo": KnobRange(0.2, 10.0, True),  # factor on the forecast
    "dynamo-load": KnobRange(0.2, 10.0, True),  # factor on the forecast
    "llm-d": KnobRange(0.101, 1.0, False),  # share of the KV cache
    "sageserve": KnobRange(0.002, 1.0, False),  # share of the KV cache
    "sageserve-forecast": KnobRange(0.002, 1.0, False),  # share of the KV cache
    "static": KnobRange(1.0, 1024.0, True),  # replicas
}

__all__ = ["KNOBS", "PEERS", "KnobRange"]
