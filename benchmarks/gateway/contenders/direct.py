"""No gateway at all: the load speaks to the upstream."""

from benchmarks.gateway.contenders.base import Contender, Setup


class Direct(Contender):
    """The floor of latency and the ceiling of throughput. Its CPU time is nobody's."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.port = setup.upstream_port

    def start(self) -> None:
        """Nothing to start."""
