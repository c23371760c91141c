"""Runs in a Pod of clients: one stream, or a load until its input ends. Prints what became of it as JSON.

cluster_client.py HOST KEY stream TOKENS      prints a line once it has begun, and one at the end
cluster_client.py HOST KEY load CLIENTS
"""

import json
import sys
import time

from balanced_load import Balancer, Client, Load, problem_of

MODEL = "small"
PORT = 80


def main() -> None:
    """What the words say."""
    host, key, what, count = sys.argv[1:]
    balancer = Balancer()
    balancer.put("service", host)
    if what == "load":
        _load(balancer, key, int(count))
    else:
        _stream(balancer, key, int(count))


def _load(balancer: Balancer, key: str, clients: int) -> None:
    load = Load(balancer, key, MODEL, PORT, clients)
    load.start()
    print(json.dumps({"begun": True}), flush=True)
    for _ in sys.stdin:  # each line asks how far it is
        print(json.dumps({"done": load.done(), "failed": len(load.failed())}), flush=True)
    load.stop()
    failed = [f"{outcome.request_id} {outcome.problem}" for outcome in load.failed()]
    print(json.dumps({"done": load.done(), "failed": failed, "asked": len(load.outcomes)}), flush=True)


def _stream(balancer: Balancer, key: str, tokens: int) -> None:
    begun = time.monotonic()
    with Client(balancer, key, MODEL, PORT).open(max_tokens=tokens, ignore_eos=True) as (_, request_id, answer):
        body = answer.readline()
        print(json.dumps({"id": request_id, "begun": time.monotonic() - begun}), flush=True)
        body += answer.read()
    seconds, problem = time.monotonic() - begun, problem_of(answer.status, body, stream=True)
    print(json.dumps({"id": request_id, "seconds": seconds, "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
