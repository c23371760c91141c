"""Traffic from trace files of published schemas, from a few parameters, and in other shapes."""

from swell.simulator.traffic.generated import GeneratedTraffic, generate
from swell.simulator.traffic.load import FORMATS, load
from swell.simulator.traffic.shape import between, describe, scale_rate, superpose, time_warp, with_batch

__all__ = [
    "FORMATS",
    "GeneratedTraffic",
    "between",
    "describe",
    "generate",
    "load",
    "scale_rate",
    "superpose",
    "time_warp",
    "with_batch",
]
