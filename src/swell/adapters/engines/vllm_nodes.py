"""How vLLM begins on each of several nodes.

GPUs: every node runs the same launch line with its rank, and the first node's address; PyTorch brings them together.
Nodes but the first have no API server (`--headless`), which only the command line's own entry knows.

TPUs: the nodes of a slice are driven through Ray, and vLLM knows no other way. The first node begins a Ray cluster and
waits until all have joined, and then is replaced by vLLM, which finds it; the others join and do nothing else.
"""

from collections.abc import Sequence

from swell.ports.engine import Span

RAY_PORT = 6379
RAY_ENVIRONMENT = {"TPU_MULTIHOST_BACKEND": "ray", "RAY_USAGE_STATS_ENABLED": "0"}

# How long to wait is not theirs to say: who is not ready after `start_timeout_seconds` is ended by Swell.
_LEAD = f"""
import os, subprocess, sys, time
nodes, command = int(sys.argv[1]), sys.argv[2:]
subprocess.run(["ray", "start", "--head", "--port={RAY_PORT}", "--include-dashboard=false"], check=True)
import ray
ray.init(address="127.0.0.1:{RAY_PORT}", log_to_driver=False)
while sum(bool(node["Alive"]) for node in ray.nodes()) < nodes:
    time.sleep(1)
ray.shutdown()
os.execvp(command[0], command)
"""
_JOIN = f"""
import os, socket, sys, time
leader = sys.argv[1]
while True:
    try:
        socket.create_connection((leader, {RAY_PORT}), timeout=5).close()
        break
    except OSError:
        time.sleep(1)
os.execvp("ray", ["ray", "start", "--address=" + leader + ":{RAY_PORT}", "--block"])
"""


def rank_arguments(span: Span, rank: str) -> list[str]:
    """What tells a node of GPUs its place."""
    return [f"--nnodes={span.nodes}", f"--node-rank={rank}", f"--master-addr={span.leader}"]


def headless(python: str, model_path: str, arguments: Sequence[str], span: Span) -> tuple[str, ...]:
    """A node of GPUs that is not the first; `arguments` are the engine's own."""
    serve = [python, "-m", "vllm.entrypoints.cli.main", "serve", model_path, "--headless"]
    return (*serve, *arguments, *rank_arguments(span, span.rank))


def leading(python: str, argv: Sequence[str], span: Span) -> tuple[str, ...]:
    """The first node of a TPU slice, which becomes `argv` once all nodes are there."""
    return (python, "-c", _LEAD, str(span.nodes), *argv, "--distributed-executor-backend=ray")


def joining(python: str, span: Span) -> tuple[str, ...]:
    """Every other node of a TPU slice."""
    return (python, "-c", _JOIN, span.leader)
