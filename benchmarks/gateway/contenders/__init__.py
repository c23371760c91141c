"""Everything that the benchmark can compare, by the name its tables use."""

from collections.abc import Mapping

from benchmarks.gateway.contenders.base import Contender, Setup
from benchmarks.gateway.contenders.direct import Direct
from benchmarks.gateway.contenders.litellm import LiteLlm
from benchmarks.gateway.contenders.nginx import Nginx, NginxTls
from benchmarks.gateway.contenders.routers import SglangRouter, Smg, VllmRouter
from benchmarks.gateway.contenders.swell import Swell, SwellTls, SwellWithoutBudgets

CONTENDERS: Mapping[str, type[Contender]] = {
    "direct": Direct,
    "nginx": Nginx,
    "swell": Swell,
    "swell-no-budgets": SwellWithoutBudgets,
    "vllm-router": VllmRouter,
    "sglang-router": SglangRouter,
    "smg": Smg,
    "litellm": LiteLlm,
    "nginx+tls": NginxTls,
    "swell+tls": SwellTls,
}
ON_DEMAND = ("swell-no-budgets",)  # run only where they are named
RUST_ROUTERS = ("vllm-router", "sglang-router", "smg")

__all__ = ["CONTENDERS", "ON_DEMAND", "RUST_ROUTERS", "Contender", "Setup"]
