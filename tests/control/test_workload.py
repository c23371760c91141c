"""From a model's spec to a workload."""

from pathlib import Path

from swell.adapters.engines import local_engines
from swell.control.loopback import free_port
from swell.control.workload import Slot, model_workload
from swell.spec import ModelSpec

ENGINES = local_engines({})


def test_a_launched_model_becomes_its_fewest_replicas(tmp_path: Path) -> None:
    model = ModelSpec(name="org/chat", source="chat.gguf", replicas={"min": 2, "max": 4}, drain_seconds=9.0)
    workload = model_workload(model, ENGINES["llama.cpp"], model_path=Path("m.gguf"), log_dir=tmp_path, cores=2)
    assert (workload.count, workload.provider, workload.drain_seconds) == (2, "process", 9.0)
    assert workload.launch is not None
    command = workload.launch(Slot("org/chat-0.x", 0, 4711, "secret"))
    assert "--port=4711" in command.argv
    assert workload.log_path(0).parent == tmp_path
    assert workload.health is not None
    assert (workload.health.is_ready(200), workload.health.is_ready(503)) == (True, False)


def test_the_fingerprint_changes_with_the_launch_line_alone(tmp_path: Path) -> None:
    def fingerprint(**changes: object) -> str:
        model = ModelSpec.model_validate({"name": "chat", "source": "chat.gguf", **changes})
        return model_workload(
            model, ENGINES["llama.cpp"], model_path=Path("m.gguf"), log_dir=tmp_path, cores=2
        ).fingerprint

    assert fingerprint() == fingerprint()
    assert fingerprint() == fingerprint(replicas=3, drain_seconds=1)
    assert fingerprint() != fingerprint(parallel=2)
    assert fingerprint() != fingerprint(engine_args=["--threads=1"])


def test_endpoints_become_one_replica_each(tmp_path: Path) -> None:
    model = ModelSpec(name="chat", endpoints=("http://127.0.0.1:9101", "https://example.test/openai/v1"))
    workload = model_workload(model, ENGINES["external"], model_path=None, log_dir=tmp_path, cores=1, key="k")
    assert (workload.count, workload.provider, workload.key, workload.launch) == (2, "external", "k", None)
    assert [address.url("/v1") for address in workload.addresses] == [
        "http://127.0.0.1:9101/v1",
        "https://example.test:443/openai/v1",
    ]


def test_a_free_port_is_none_of_those_taken() -> None:
    taken: set[int] = set()
    for _ in range(20):
        port = free_port(taken)
        assert port not in taken
        taken.add(port)
