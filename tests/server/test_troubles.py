"""Failures are told once per reason, and views of replicas are plain values."""

from dataclasses import replace
from pathlib import Path

from swell.control.replica import Replica
from swell.control.workload import GATEWAY_WORKER
from swell.observe.metrics import exposition
from swell.server.troubles import Troubles
from swell.server.views import in_flight, replica_rows, server_samples, worker_rows
from swell.state.messages import Load, ModelLoad, ReplicaLoad
from swell.state.replica import Phase

READY = Replica(
    workload="chat", kind="replica", provider="process", ordinal=1, child_id="chat-1.aa", fingerprint="",
    log_path=Path("logs/chat-1.log"), phase=Phase.READY, since=0, drain_seconds=0, stop_grace_seconds=0,
)  # fmt: skip
FAILED = replace(READY, phase=Phase.FAILED, last_error="ended (exit code 3)\nloading\nno such file")
WORKER = replace(READY, workload="gateway", kind=GATEWAY_WORKER, child_id="0123456789ab")
LOAD = Load(2, 1, (ReplicaLoad("chat-1.aa", 2, 100, False, 0),), ())


def test_a_failure_is_told_once_until_it_was_ready_again() -> None:
    told: list[str] = []
    troubles = Troubles(told.append)
    for replica in (FAILED, FAILED, READY, FAILED, replace(FAILED, last_error="was not ready within 5 s")):
        troubles.look([replica], {})
    first = "chat-1 ended (exit code 3): no such file (Swell tries again; see: swell logs chat-1)"
    assert told == [first, first, "chat-1 was not ready within 5 s (Swell tries again; see: swell logs chat-1)"]


def test_a_place_that_does_not_answer_is_told_once_and_when_it_answers() -> None:
    told: list[str] = []
    troubles = Troubles(told.append)
    for awaited in ({"far": "refused"}, {"far": "timed out"}, {}, {}):
        troubles.look([READY], awaited)
    away = "far has not answered since this server began: refused. What ran there is left as it is; it is asked again"
    assert told == [away, "far answers, and what runs there is taken over"]


def test_a_closed_terminal_is_no_reason_to_stop() -> None:
    said: list[str] = []

    def closed(sentence: str) -> None:
        said.append(sentence)
        raise BrokenPipeError

    Troubles(closed).say("anything")
    assert said == ["anything"]


def test_rows_for_status() -> None:
    loads = {"a": LOAD, "b": LOAD}
    assert in_flight(loads.values()) == {"chat-1.aa": 4}
    [row] = replica_rows([READY, WORKER], loads)
    assert (row["replica_id"], row["in_flight"], row["reason"], row["log"]) == ("chat-1.aa", 4, "", "chat-1")
    assert replica_rows([FAILED], {})[0]["reason"] == "ended (exit code 3)"
    [serving] = worker_rows([READY, WORKER], {WORKER.child_id: LOAD}, [WORKER.child_id])
    assert (serving["state"], serving["in_flight"], serving["queued"]) == ("serving", 2, 1)
    assert worker_rows([WORKER], {}, [])[0]["state"] == "ready"


def test_the_servers_own_metrics_count_replicas_by_phase() -> None:
    told = server_samples([READY, FAILED, WORKER], {}, workers=1, store_seconds=0.5, refused=3)
    samples = {(sample.name, sample.labels): sample.value for sample in told}
    assert samples["swell_server_replicas", (("model", "chat"), ("phase", "ready"))] == 1
    assert samples["swell_server_replicas", (("model", "chat"), ("phase", "failed"))] == 1
    assert samples["swell_server_workers", ()] == 1
    assert samples["swell_server_refused_connections_total", ()] == 3


def test_what_workers_say_of_models_and_replicas_that_there_are_is_told_and_nothing_of_others() -> None:
    load = Load(
        3,
        1,
        (ReplicaLoad("chat-1.aa", 2, 100, True, 1), ReplicaLoad("chat-1.gone", 9, 9, False, 0)),
        (),
        (ModelLoad("chat", in_flight=2, queued=1),),
    )
    told = server_samples([READY, WORKER], {"a": load, "b": load}, workers=2, store_seconds=0.5, refused=0)
    rows = exposition((sample.name, sample.labels, sample.value) for sample in told).decode().splitlines()
    assert [row for row in rows if row.startswith(("swell_in", "swell_queued", "swell_replica"))] == [
        'swell_in_flight{model="chat"} 4',
        'swell_queued{model="chat"} 2',
        'swell_replica_ejected{model="chat",replica="chat-1"} 2',
        'swell_replica_in_flight{model="chat",replica="chat-1"} 4',
        'swell_replica_outstanding_tokens{model="chat",replica="chat-1"} 200',
    ]
