"""The cluster of make-believe in a process of its own: `python -m benchmarks.kubernetes.cluster NODES [NETWORK]`.

Prints its URL and token, then obeys lines: `crash N`, `delete N`, `pods`, `names`, `requests`. Ends with its standard
input. Pods have addresses NETWORK.0.1, NETWORK.0.2 and so on; where that is of loopback, something can answer there.
"""

import asyncio
import json
import sys

from swell.adapters.providers.kubernetes import names
from swell.clock import SystemClock
from swell.testing.cluster import ApiServer, Controllers, FakeCluster

STEP_SECONDS = 0.5
NAMESPACE = "models"


async def main(nodes: int, network: str = "") -> None:
    """Serve until nobody listens any more."""
    cluster = FakeCluster(SystemClock())
    controllers = Controllers(cluster, names.WORKLOAD)
    if network:
        controllers.kubelet.address_of = lambda number: f"{network}.{number >> 8}.{number & 255}"
    for number in range(nodes):
        controllers.add_node(f"node-{number}", zone=f"zone-{number % 3}")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with ApiServer(cluster, NAMESPACE) as server:
        print(json.dumps({"url": server.url, "token": server.token}), flush=True)
        goes_on = asyncio.ensure_future(_go_on(controllers))
        while line := (await reader.readline()).decode().split():
            print(json.dumps(_obey(controllers, line)), flush=True)
        goes_on.cancel()


async def _go_on(controllers: Controllers) -> None:
    while True:
        controllers.step()
        await asyncio.sleep(STEP_SECONDS)


def _obey(controllers: Controllers, line: list[str]) -> object:
    cluster = controllers.cluster
    running = [
        name
        for name, pod in cluster.objects["pods"].items()
        if pod["status"].get("containerStatuses") and "deletionTimestamp" not in pod["metadata"]
    ]
    match line:
        case ["crash", count]:
            for name in running[:: max(1, len(running) // int(count))][: int(count)]:
                controllers.kubelet.crash(name)
        case ["delete", count]:
            for name in running[7 :: max(1, len(running) // int(count))][: int(count)]:
                cluster.delete("pods", name)
        case ["names"]:
            return sorted(cluster.objects["pods"])
        case ["pods"]:
            claimed = [pod for pod in cluster.objects["pods"].values() if names.CHILD in pod["metadata"]["annotations"]]
            return {"pods": len(running), "claimed": len(claimed), "deployments": len(cluster.objects["deployments"])}
    return dict(cluster.requests)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:3]))
