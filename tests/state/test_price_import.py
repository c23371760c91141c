"""Amounts from text to nano-dollars and back, tables that are refused, and published tables that are imported."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.errors import UserError
from swell.state.catalogue import Price, add_prices, load_prices, matching, prices
from swell.state.catalogue_rows import MAX_FILE_BYTES, read_rows, write_rows
from swell.state.price_import import NO_ACCELERATOR, NO_MACHINE, NO_PRICE, OTHER_CLOUD, PART, TWICE, Imported
from swell.state.price_import import read_catalogue as read_table
from swell.state.scaling import Market
from swell.units import usd_nanos

HEADER = (
    "as_of,cloud,region,zone,instance,accelerator,accelerator_count,on_demand_usd_per_hour,spot_usd_per_hour,source\n"
)
GOOD = "2026-11-30,here,r,z,big,H100,8,55.04,11.2543,a list\n"
COMMON = (
    "cloud,instance_type,accelerator,accelerator_count,gpu_mem_gib,vcpus,mem_gib,region,zone,on_demand_usd_h,spot_usd_h,"
    "source\n"
)
PUBLISHED = (
    "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Region,AvailabilityZone,Price,SpotPrice\n"
)


def imported(text: str, cloud: str | None = None, *, skip_wrong: bool = False) -> Imported:
    return read_table(io.StringIO(text, newline=""), "t.csv", as_of="2026-11-30", cloud=cloud, skip_wrong=skip_wrong)


def price(**changes: object) -> Price:
    fields: dict[str, object] = {
        "as_of": "2026-11-30", "cloud": "c", "instance": "i", "accelerator": "L4", "accelerator_count": 1,
        "on_demand_usd_nanos_per_hour": 10**9, "source": "s",
    }  # fmt: skip
    return Price(**{**fields, **changes})  # type: ignore[arg-type]


# Swell's own shape


def test_amounts_are_whole_nano_dollars_and_the_planner_has_the_nearest_float() -> None:
    (found,) = [p for p in prices() if p.instance == "p4de.24xlarge" and p.zone == "use1-az6"]
    assert (found.on_demand_usd_nanos_per_hour, found.spot_usd_nanos_per_hour) == (27_447_050_000, 8_650_500_000)
    assert (found.on_demand_usd_per_hour, found.spot_usd_per_hour) == (27.44705, 8.6505)
    assert found.usd_per_hour(Market.SPOT, 4) == 8.6505 * 4 / 8
    assert found.usd_nanos_per_hour(Market.SPOT, 4) == 4_325_250_000
    assert found.usd_nanos_per_hour(Market.SPOT, 3) is None
    assert price(accelerator_count=3).usd_nanos_per_hour(Market.ON_DEMAND, 1) == 333_333_334


def test_a_discount_begins_at_five_percent() -> None:
    assert not price(spot_usd_nanos_per_hour=950_000_000).has_discount
    assert price(spot_usd_nanos_per_hour=949_999_999).has_discount


@given(nanos=st.integers(0, 10**14))
def test_a_float_is_what_its_text_would_be(nanos: int) -> None:
    text = f"{nanos // 10**9}.{nanos % 10**9:09d}"
    assert usd_nanos(text) == nanos
    assert price(on_demand_usd_nanos_per_hour=nanos).on_demand_usd_per_hour == float(text)


@pytest.mark.parametrize("name", ["own.csv", "own.yaml", "own.json"])
def test_every_digit_survives_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = [
        price(on_demand_usd_nanos_per_hour=12_345_678_901_234, spot_usd_nanos_per_hour=1),
        price(zone="z", on_demand_usd_nanos_per_hour=None, spot_usd_nanos_per_hour=3 * 10**9, source='a, "b"'),
    ]
    write_rows(path, rows)
    assert read_rows(Price, path) == rows
    assert [file.name for file in tmp_path.iterdir()] == [name]
    if name != "own.json":
        assert "12345.678901234" in path.read_text()
        assert "'12345" not in path.read_text()


def test_yaml_amounts_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    row = "- {as_of: 2026, cloud: c, instance: i, accelerator: L4, accelerator_count: 1, on_demand: %s}"
    path.write_text(row % "99999.100000007")
    (found,) = read_rows(Price, path)
    assert (found.on_demand_usd_nanos_per_hour, found.as_of, found.source) == (99_999_100_000_007, "2026", "own.yaml")
    path.write_text(row % "0.1000000000000000055")  # a float would have made it 0.1
    with pytest.raises(UserError, match=r"row 1, on_demand_usd_per_hour: '0\.1000000000000000055' is finer"):
        read_rows(Price, path)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("55.04", "-1", "own.csv, line 3, on_demand_usd_per_hour: -1 must be 0 or more"),
        ("55.04", "nan", "line 3, on_demand_usd_per_hour: 'nan' is not an amount in dollars"),
        ("55.04", "inf", "'inf' is not an amount in dollars"),
        ("55.04", "EUR 5", "'EUR 5' is not an amount in dollars"),
        ("55.04", "1.0000000001", "finer than a nano-dollar"),
        ("55.04", "100001", "is more than 100000 dollars an hour"),
        ("55.04", "1e-99999999", "has more than 40 digits"),
        ("11.2543", "-0.1", "line 3, spot_usd_per_hour: -0.1 must be 0 or more"),
        ("11.2543", "5504.01", "line 3, spot_usd_per_hour: 5504.01 is over 100 times on-demand, 55.04"),
        ("2026-11-30", "30.11.2026", "line 3, as_of: '30.11.2026' is not a date"),
        ("2026-11-30", "2026-02-30", "'2026-02-30' is not a date"),
        ("big", "b\x1b[31mig", "line 3, instance: 'b\\x1b[31mig' has control characters"),
        (",8,", ",8.5,", "line 3, accelerator_count: 8.5 must be a whole number"),
        (",a list", ",a list,more", "line 3: has 1 cells more than there are columns"),
    ],
)
def test_a_table_is_refused_with_file_line_and_column(tmp_path: Path, was: str, now: str, said: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(HEADER + GOOD + GOOD.replace(was, now))
    with pytest.raises(UserError) as refused:
        load_prices(path)
    assert str(path) in refused.value.message
    assert said in refused.value.message


def test_a_column_is_not_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(HEADER.replace("source", "on_demand") + GOOD.replace("a list", "5"))
    with pytest.raises(UserError, match="on_demand_usd_per_hour is given twice"):
        load_prices(path)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    add_prices(path, [price()])
    before = path.read_bytes()
    long = "s" * 500
    with pytest.raises(UserError, match="a table is read up to"):
        add_prices(path, [price(instance=f"i{n}", source=long) for n in range(MAX_FILE_BYTES // 500)])
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_rows(tmp_path / "folder", [price()])
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "own.csv"]


def test_prices_are_added_in_place_of_those_of_the_same_place(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    assert add_prices(path, [price(zone="a"), price(zone="b"), price(instance="other")]) == 0
    assert add_prices(path, [price(zone="a", on_demand_usd_nanos_per_hour=7)]) == 2
    found = load_prices(path, extend=False)
    assert [(p.instance, p.zone, p.on_demand_usd_nanos_per_hour) for p in found] == [
        ("i", "b", 10**9), ("other", "", 10**9), ("i", "a", 7),
    ]  # fmt: skip


def test_conditions_and_names_that_nobody_knows() -> None:
    listed = [
        price(cloud="a", region="r1"), price(cloud="b", region="r2", accelerator="H100", accelerator_count=8),
        price(cloud="own", accelerator="H100", accelerator_count=4), price(cloud="a", region="r2", accelerator="T4"),
    ]  # fmt: skip

    def clouds(**conditions: object) -> list[str]:
        return [p.cloud for p in matching(among=listed, **conditions)]  # type: ignore[arg-type]

    assert clouds(accelerators=["h100"]) == ["b", "own"]
    assert clouds(accelerators=["8xH100"]) == ["b"]
    assert clouds(accelerators=["8xH100", "L4"]) == ["a", "b"]
    assert clouds(regions=["R2"]) == ["b", "own", "a"]  # what is in no region is in every region
    assert clouds(model="meta-llama/Llama-3.1-8B-Instruct") == ["a", "b", "own"]
    assert clouds(model="llama-3.1-70b-fp8", accelerators=["L4"]) == []
    assert clouds(market=Market.SPOT) == []
    with pytest.raises(UserError, match="no price of the accelerator 'H10' is listed; did you mean H100"):
        clouds(accelerators=["H10"])
    with pytest.raises(UserError, match="no price of the cloud 'zzzz' is listed; listed are a, b, own"):
        clouds(clouds=["zzzz"])
    with pytest.raises(UserError, match="no latency profile"):
        clouds(model="nothing-7b")


# Published tables


def test_the_common_shape() -> None:
    found = imported(
        COMMON + "aws,g5.xlarge,A10G,1,22.35,4,16,us-east-1,use1-az1,1.006,0.4507,a list\n"
        "aws,p5.48xlarge,H100,8,80,192,2048,us-east-1,use1-az1,55.04,55.0400,a list\n"
        "nebius,cpu,,0,,4,16,us-central1,,0.0992,,a list\n"
        "aws,g6.xlarge,L4,1,24,4,16,us-east-1,,,,\n"
        "aws,g5.xlarge,A10G,1,22.35,8,16,us-east-1,use1-az1,1.006,0.4507,a list\n"
        "\n"
        "azure,NC40,H100,1,94,40,320,eastus,,6.98,1.289904,\n"
    )
    assert [
        (p.cloud, p.accelerator, p.on_demand_usd_nanos_per_hour, p.spot_usd_nanos_per_hour) for p in found.prices
    ] == [
        ("aws", "A10G", 1_006_000_000, 450_700_000),
        ("aws", "H100", 55_040_000_000, None),
        ("azure", "H100-NVL", 6_980_000_000, 1_289_904_000),
    ]
    assert [(p.as_of, p.source, p.zone) for p in found.prices[1:]] == [
        ("2026-11-30", "a list", "use1-az1"), ("2026-11-30", "imported from t.csv", ""),
    ]  # fmt: skip
    assert found.left_out == {NO_ACCELERATOR: 1, NO_PRICE: 1, TWICE: 1}
    assert (found.rows, found.wrong, found.without_discount, found.rounded_up) == (6, (), 1, 0)
    assert found.renamed == {"H100 is H100-NVL": 1}


def test_the_published_shape() -> None:
    memory = "\"{'Gpus': [{'Name': 'A100', 'Count': 8.0, 'MemoryInfo': {'SizeInMiB': %d}}]}\""
    found = imported(
        PUBLISHED + f"p4d.24xlarge,96.0,1152.0,A100,8.0,{memory % 40960},us-east-1,us-east-1a,21.957642,6.5\n"
        f"gpu_8x,96.0,1152.0,A100,8.0,{memory % 81920},us-east-1,,14.32,\n"
        "m5.large,2.0,8.0,,,,us-east-1,us-east-1a,0.096,0.04\n"
        ",,,T4,1.0,\"{'Gpus': []}\",us-central1,us-central1-a,0.35,0.14\n"
        "nv6,6.0,55.0,A10,0.167,,eastus,,0.454,0.09\n"
        ",,,tpu-v6e-8,1,tpu-v6e-8,us-east5,us-east5-a,21.6,9.72\n"
        ",,,tpu-v5litepod-4,1,tpu-v5litepod-4,us-east5,us-east5-a,4.8,\n"
        ",,,tpu-v5p-16,1,tpu-v5p-16,us-east5,us-east5-a,33.6,\n",
        cloud="mixed",
    )
    assert [(p.instance, p.accelerator, p.accelerator_count) for p in found.prices] == [
        ("p4d.24xlarge", "A100-40GB", 8), ("gpu_8x", "A100-80GB", 8), ("tpu-v6e-8", "v6e", 8),
        ("tpu-v5litepod-4", "v5e", 4), ("tpu-v5p-16", "v5p", 8),
    ]  # fmt: skip
    assert {p.cloud for p in found.prices} == {"mixed"}
    assert found.left_out == {NO_ACCELERATOR: 1, NO_MACHINE: 1, PART: 1}


def test_the_cloud_is_stated_or_chosen() -> None:
    row = "g6.xlarge,4,16,L4,1,,us-east-1,a,0.8,0.3\n"
    with pytest.raises(UserError, match="say it with --cloud"):
        imported(PUBLISHED + row)
    several = COMMON + "aws,i,L4,1,,,,r,,1,,\ngcp,i,L4,1,,,,r,,1,,\n,j,L4,1,,,,r,,1,,\n"
    found = imported(several, "AWS")
    assert [(p.cloud, p.instance) for p in found.prices] == [("aws", "i"), ("AWS", "j")]
    assert found.left_out == {OTHER_CLOUD: 1}
    with pytest.raises(UserError, match="line 4, cloud:"):
        imported(several)


def test_amounts_that_a_program_counted_in_floats_are_rounded_up() -> None:
    found = imported(COMMON + "c,i,L4,1,,,,r,,0.30000000000000004,1e-1,\n")
    assert found.prices[0].on_demand_usd_nanos_per_hour == 300_000_001
    assert found.prices[0].spot_usd_nanos_per_hour == 100_000_000
    assert found.rounded_up == 1


WRONG = {
    "c,i,L4,1,,,,r,,-1,,\n": "on_demand_usd_h: -1 must be 0 or more",
    "c,i,L4,1,,,,r,,nan,,\n": "on_demand_usd_h: 'nan' is not",
    "c,i,L4,1,,,,r,,1,inf,\n": "spot_usd_h: 'inf' is not",
    "c,i,L4,1,,,,r,,2.7,700,\n": "spot_usd_h: 700.00 is over 100 times on-demand, 2.70",
    "c,i,L4,1,,,,r,,0,,\n": "on_demand_usd_h: nothing is for free",
    "c,i,L4,1,,,,r,,1e6,,\n": "is more than 100000 dollars",
    "c,i,L4,1.5,,,,r,,1,,\n": "accelerator_count: 1.5 must be a whole number",
    "c,i,L4,two,,,,r,,1,,\n": "accelerator_count: 'two' is not a number",
    "c,i\x07,L4,1,,,,r,,1,,\n": "instance_type: 'i\\x07' has control characters",
    "c,i,L4,1,,,,r\n": "has 8 cells under 12 columns",
}


@pytest.mark.parametrize("row", WRONG)
def test_a_row_that_cannot_be_true_refuses_the_table(row: str) -> None:
    table = COMMON + "c,good,L4,1,,,,r,,1,,\n" + row
    with pytest.raises(UserError) as refused:
        imported(table)
    assert "t.csv: 1 of 2 rows cannot be true" in refused.value.message
    assert "line 3" in refused.value.message
    assert WRONG[row] in refused.value.message
    found = imported(table, skip_wrong=True)
    assert [p.instance for p in found.prices] == ["good"]
    assert len(found.wrong) == 1


def test_many_wrong_rows_are_named_and_counted() -> None:
    with pytest.raises(UserError) as refused:
        imported(COMMON + "".join(WRONG) + "c,good,L4,1,,,,r,,1,,\n")
    assert "10 of 11 rows" in refused.value.message
    assert "line 6" in refused.value.message
    assert "line 7" not in refused.value.message
    assert "and 5 more" in refused.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no column"),
        ("a,b\n1,2\n", "there is no column instance_type"),
        (PUBLISHED.replace("Price,", "Cost,"), "there is no column Price"),
        (COMMON.replace("vcpus", "zone"), "there are several columns zone"),
        (HEADER + GOOD, "in Swell's own shape already"),
        (COMMON, "no price to take in its 0 rows"),
        (COMMON + "c,i,,0,,,,r,,1,,\n", "no price to take in its 1 rows: 1 no accelerator"),
        (COMMON + 'c,"' + "i" * 200_000 + '",L4,1,,,,r,,1,,\n', "line 2: field larger than"),
    ],
)
def test_a_table_of_another_shape_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        imported(text)
    assert said in refused.value.message


@given(text=st.text(alphabet='ac,."\n\r-1 0eL4\x00é', max_size=200))
def test_whatever_stands_there_is_read_or_refused(text: str) -> None:
    try:
        found = imported(COMMON + text, skip_wrong=True)
    except UserError:
        return
    assert len(found.prices) + sum(found.left_out.values()) + len(found.wrong) == found.rows
