"""Which kinds of machines a cluster may give a model, and what a Pod then asks for."""

from pathlib import Path

import pytest

from swell.control.workload import Slot
from swell.errors import UserError
from swell.ports.engine import Span
from swell.ports.provider import Needs
from swell.server.assembly import prepare_model
from swell.server.cluster_pools import cluster_pools, with_parallelism
from swell.server.scaling import swell_scaler
from swell.server.state_directory import StateDirectory
from swell.spec import KubernetesSpec, ModelSpec
from swell.state.catalogue import prices
from swell.state.scaling import Market, Observation, Window

NEEDS = Needs(image="vllm:1", memory_bytes=1 << 34)
LLAMA = "hf://meta-llama/Llama-3.1-8B-Instruct"


def model(**fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "chat", "source": LLAMA, "replicas": "1..9", **fields})


def place(**fields: object) -> KubernetesSpec:
    return KubernetesSpec.model_validate({"name": "c", "images": {"vllm": "vllm:1"}, "platform": "eks", **fields})


def test_one_accelerator_without_spot_needs_no_pools() -> None:
    assert cluster_pools(model(), place(), NEEDS) == ()
    assert cluster_pools(model(accelerators=["L4"]), place(), NEEDS) == ()


def test_each_accelerator_is_a_pool_of_its_own_with_what_its_pods_ask_for() -> None:
    found = cluster_pools(model(accelerators=["H100", "L4"]), place(region="us-east-1"), NEEDS)
    assert [(each.pool.name, each.needs.accelerator, each.needs.market) for each in found] == [
        ("L4", "L4", "on_demand"), ("H100", "H100", "on_demand"),
    ]  # fmt: skip
    assert all((each.needs.image, each.needs.memory_bytes) == ("vllm:1", 1 << 34) for each in found)
    assert all(each.needs.zone == "" for each in found)
    listed = {price.on_demand_usd_nanos_per_hour for price in prices() if price.accelerator == "L4"}
    assert found[0].usd_nanos_per_hour in listed


def test_spot_has_a_pool_for_each_zone_of_the_region() -> None:
    spec = model(accelerators=["L4"], spot={"max_fraction": 0.5})
    found = cluster_pools(spec, place(region="us-east-1"), NEEDS)
    assert found[0].pool.market is Market.ON_DEMAND
    spot = found[1:]
    assert {each.needs.zone for each in spot} == {
        price.zone for price in prices() if price.accelerator == "L4" and price.region == "us-east-1"
    }
    assert all(each.needs.market == "spot" for each in spot)
    assert all(each.usd_nanos_per_hour < found[0].usd_nanos_per_hour for each in spot)
    assert len({each.pool.name for each in found}) == len(found)


def test_a_place_of_one_market_has_no_other() -> None:
    spec = model(accelerators=["L4", "L40S"], spot={})
    found = cluster_pools(spec, place(region="us-east-1", market="spot"), NEEDS)
    assert {each.pool.market for each in found} == {Market.SPOT}
    off = cluster_pools(model(accelerators=["L4"], spot={"max_fraction": 0.0}), place(), NEEDS)
    assert [each.pool.market for each in off] == [Market.ON_DEMAND]


def test_bills_count_the_same_money_that_the_policy_weighs() -> None:
    for each in cluster_pools(model(accelerators=["L4", "H100"], spot={}), place(region="us-east-1"), NEEDS):
        assert each.usd_nanos_per_hour == pytest.approx(each.pool.usd_per_hour * 1e9, abs=2)


@pytest.mark.parametrize(
    ("fields", "where", "problem"),
    [
        ({"spot": {}}, {"region": "us-east-1"}, "spot needs accelerators"),
        ({"accelerators": ["L4"], "spot": {}}, {}, "region of c"),
        ({"accelerators": ["L4", "H100"], "source": "hf://org/unknown"}, {}, "no latency profile"),
        ({"accelerators": ["L4", "v6e"]}, {}, "no latency profile"),
    ],
)
def test_what_nothing_is_known_of_is_refused(fields: dict[str, object], where: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        cluster_pools(model(**fields), place(**where), NEEDS)


def test_vllm_is_told_to_use_every_accelerator_of_a_replica() -> None:
    big = model(source="hf://meta-llama/Llama-3.1-70B-Instruct", context_tokens=8192)
    assert with_parallelism(big, Needs(accelerator="H100", accelerators=4)).engine_args == ("--tensor-parallel-size=4",)
    own = model(source="hf://meta-llama/Llama-3.1-70B-Instruct", engine_args=["--tensor-parallel-size=2"])
    assert with_parallelism(own, Needs(accelerator="H100", accelerators=4)).engine_args == own.engine_args
    assert with_parallelism(model(), Needs(accelerator="L4", accelerators=1)).engine_args == ()
    assert with_parallelism(model(), NEEDS).engine_args == ()


def test_a_model_that_cannot_fit_is_refused_before_anything_is_started() -> None:
    big = model(source="hf://meta-llama/Llama-3.1-70B-Instruct")
    with pytest.raises(UserError, match=r"model chat on 1 x L4: needs .* GiB"):
        with_parallelism(big, Needs(accelerator="L4", accelerators=1))


def test_the_policy_begins_with_what_is_cheapest() -> None:
    spec = model(accelerators=["H100", "L4"])
    pools = [each.pool for each in cluster_pools(spec, place(region="us-east-1"), NEEDS)]
    decision = swell_scaler(spec, pools).decide(Observation(0.0, Window(0.0, 5.0), ()))
    assert dict(decision.counts).get("L4") == 1
    assert decision.replicas == 1


def test_a_model_of_several_pools_is_prepared_as_a_workload_each(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "s")
    state.create()
    spec = model(accelerators=["L4", "2xH100"], engine="vllm")
    made = prepare_model(spec, place(region="us-east-1"), state, lambda done, total: None)
    assert [(each.name, each.serves, each.pool, each.count) for each in made.workloads] == [
        ("chat@L4", "chat", "L4", 0), ("chat@2xH100", "chat", "2xH100", 0),
    ]  # fmt: skip
    assert [each.workload for each in made.pools] == ["chat@L4", "chat@2xH100"]
    lines = []
    for workload in made.workloads:
        assert workload.launch is not None
        lines.append(workload.launch(Slot("c", 0, 8000, "key", host="0.0.0.0")).argv)  # noqa: S104  of its own network
    assert "--tensor-parallel-size=2" not in lines[0]
    assert "--tensor-parallel-size=2" in lines[1]
    assert len({workload.fingerprint for workload in made.workloads}) == 2
    assert len({workload.key for workload in made.workloads}) == 1
    alone = prepare_model(model(accelerators=["L4"]), place(), state, lambda done, total: None)
    assert [(each.name, each.count, alone.pools) for each in alone.workloads] == [("chat", 1, ())]


def test_what_is_batch_alone_may_be_on_spot_without_being_asked_where_that_can_be() -> None:
    spec = model(accelerators=["L4"], priority="batch")
    found = cluster_pools(spec, place(region="us-east-1"), NEEDS)
    assert {each.pool.market for each in found} == {Market.ON_DEMAND, Market.SPOT}
    assert cluster_pools(spec, place(), NEEDS) == (), "nobody asked for spot, so no region is missed"
    assert cluster_pools(model(priority="batch"), place(region="us-east-1"), NEEDS) == ()
    told = cluster_pools(model(accelerators=["L4"], priority="batch", spot={"max_fraction": 0.0}), place(), NEEDS)
    assert {each.pool.market for each in told} == {Market.ON_DEMAND}


def over(nodes: int, accelerator: str = "8xH100", **fields: object) -> tuple[ModelSpec, Needs]:
    kind, count = accelerator.partition("x")[2], int(accelerator.partition("x")[0])
    spec = model(accelerators=[accelerator], nodes=nodes, **fields)
    return spec, Needs(image="vllm:1", accelerator=kind, accelerators=count, nodes=nodes)


def test_over_nodes_layers_are_dealt_out_to_nodes() -> None:
    spec, needs = over(2, source="hf://meta-llama/Llama-3.1-70B-Instruct", context_tokens=4096)
    assert with_parallelism(spec, needs).engine_args == ("--tensor-parallel-size=8", "--pipeline-parallel-size=2")
    spec, needs = over(2, source="hf://org/nobody-knows-it")
    assert with_parallelism(spec, needs).engine_args == ("--tensor-parallel-size=8", "--pipeline-parallel-size=2")
    spec, needs = over(4, "4xv6e", source="hf://meta-llama/Llama-3.1-70B-Instruct", context_tokens=4096)
    assert with_parallelism(spec, needs).engine_args == ("--tensor-parallel-size=16",)


def test_who_says_how_a_replica_is_split_is_heard() -> None:
    spec, needs = over(2, engine_args=["--tensor-parallel-size=16"])
    assert with_parallelism(spec, needs) == spec


@pytest.mark.parametrize(
    ("told", "added"),
    [
        (["--tensor-parallel-size=8"], ["--pipeline-parallel-size=2"]),
        (["--tensor_parallel_size", "4"], ["--pipeline-parallel-size=4"]),
        (["-tp", "16"], []),
        (["--pipeline-parallel-size=2"], ["--tensor-parallel-size=8"]),
        (["-pp=16"], []),
        (["--tensor-parallel-size=4", "-pp", "4"], []),
        (["--data-parallel-size=2"], ["--tensor-parallel-size=8"]),
        (["--data-parallel-size=4"], ["--tensor-parallel-size=4"]),
        (["-dp=2", "-tp=4"], ["--pipeline-parallel-size=2"]),
        (["-tp=2", "-tp=8"], ["--pipeline-parallel-size=2"]),
    ],
)
def test_what_is_not_said_of_how_a_replica_is_split_follows_from_what_is(told: list[str], added: list[str]) -> None:
    spec, needs = over(2, engine_args=told)
    assert list(with_parallelism(spec, needs).engine_args) == [*added, *told]


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (["--tensor-parallel-size=8", "--pipeline-parallel-size=1"], r"8 x 1 of 16 accelerators"),
        (["--tensor-parallel-size=5"], r"5 of 16 accelerators"),
        (["--tensor-parallel-size=8", "--data-parallel-size=4"], r"8 x 4 of 16 accelerators"),
        (["--data-parallel-size=3"], r"3 of 16 accelerators"),
    ],
)
def test_a_split_that_is_not_of_all_accelerators_is_refused(told: list[str], problem: str) -> None:
    spec, needs = over(2, source="hf://org/nobody-knows-it", engine_args=told)
    with pytest.raises(UserError, match=rf"model chat on 2 nodes of 8 x H100: engine_args split it over {problem}"):
        with_parallelism(spec, needs)


def test_copies_and_groups_of_one_machine_share_its_accelerators() -> None:
    needs = Needs(accelerator="H100", accelerators=8)
    cases = [(["-dp=2"], ["--tensor-parallel-size=4"])]
    cases += [(told, []) for told in (["-pp=8"], ["-pp=16"], ["-pp=2", "-dp=4"], ["-dp=many"])]
    for told, added in cases:
        spec = model(source="hf://org/nobody-knows-it", engine_args=told)
        assert list(with_parallelism(spec, needs).engine_args) == [*added, *told]


def test_heads_that_cannot_be_dealt_out_evenly_are_refused() -> None:
    spec, needs = over(3, "4xH100", engine_args=["--tensor-parallel-size=12"])
    with pytest.raises(UserError, match=r"32 attention heads cannot be dealt out to 12 accelerators"):
        with_parallelism(spec, needs)


def test_whether_heads_can_be_dealt_out_to_a_slice_must_be_known_or_said() -> None:
    spec, needs = over(4, "4xv6e", source="hf://org/nobody-knows-it")
    advice = r"model chat on 4 nodes of 4 x v6e: .* 16 chips.*num_attention_heads.*--tensor-parallel-size=16"
    with pytest.raises(UserError, match=advice):
        with_parallelism(spec, needs)
    said = spec.model_copy(update={"engine_args": ("--tensor-parallel-size=16",)})
    assert with_parallelism(said, needs) == said
    part = spec.model_copy(update={"engine_args": ("--tensor-parallel-size=8",)})
    with pytest.raises(UserError, match="split it over 8 of 16 accelerators"):
        with_parallelism(part, needs)


def test_what_does_not_fit_over_its_nodes_is_refused_before_it_starts() -> None:
    spec, needs = over(2, "1xL4", source="hf://meta-llama/Llama-3.1-70B-Instruct")
    with pytest.raises(UserError, match=r"on 2 nodes of 1 x L4: needs .* GiB of each"):
        with_parallelism(spec, needs)


def test_replicas_over_nodes_are_no_mix() -> None:
    spec, needs = over(2, priority="batch")
    assert cluster_pools(spec, place(region="us-east-1"), needs) == ()


def test_a_model_over_nodes_is_prepared_with_both_launch_lines(tmp_path: Path) -> None:
    spec, _ = over(2, context_tokens=4096)
    prepared = prepare_model(spec, place(), StateDirectory(tmp_path / "s"), lambda done, total: None)
    (workload,) = prepared.workloads
    assert workload.needs.nodes == 2
    assert workload.launch is not None
    command = workload.launch(Slot("chat-0.1", 0, 8000, "k", "0.0.0.0", Span(2, "$(A)", "$(B)")))  # noqa: S104
    assert "--master-addr=$(A)" in command.argv
    assert "--node-rank=$(B)" in command.worker_argv
    assert "--pipeline-parallel-size=2" in command.argv
    assert "--pipeline-parallel-size=2" in command.worker_argv
