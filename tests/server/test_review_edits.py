"""Edits of a spec's text: only what was meant changes, comments and layout stay, and what is unusual is refused."""

import pytest

from swell.server.review_edits import Change, UnsafeEditError, changed, edited, snippet
from swell.spec import parse_spec

SPOT = Change(("spot", "max_fraction"), 1.0)
RANGE = (Change(("replicas", "min"), 0), Change(("replicas", "max"), 20))
MACHINES = Change(("accelerators",), ("L40S", "4xH100"))


def lines(text: str, *changes: Change, model: str = "chat") -> tuple[list[str], list[str]]:
    """Lines that went and lines that came."""
    after = edited(text, model, changes, origin="swell.yaml", base=None).splitlines()
    before = text.splitlines()
    return [line for line in before if line not in after], [line for line in after if line not in before]


FLOW = """\
# Ours.
models:
  - name: chat   # the app's
    source: hf://org/Llama-3.1-8B
    replicas: {min: 20, max: 20}   # to be safe
    accelerators: [H200]  # dear

    # what was agreed
    objectives: {attainment: 0.99}
tenants: [{name: a}]
"""


def test_values_are_replaced_where_they_stand_and_new_fields_come_below_their_neighbours() -> None:
    gone, came = lines(FLOW, *RANGE, MACHINES, SPOT)
    assert gone == ["    replicas: {min: 20, max: 20}   # to be safe", "    accelerators: [H200]  # dear"]
    assert came == [
        "    replicas: {min: 0, max: 20}   # to be safe",
        "    accelerators: [L40S, 4xH100]  # dear",
        "    spot: {max_fraction: 1.0}",
    ]


BLOCK = """\
models:
- source: hf://org/other
  name: other
  accelerators:
  - H200
- replicas:
    min: 20
    max: 20 # the most
  accelerators:
    # bought in May
    - H200   # dear
    # not yet
    - L40S   # cheap

  spot:
  scaling:
    interval_seconds: 5
    # nothing else
  source: hf://org/Llama-3.1-8B
  name: chat"""


def test_a_file_in_blocks_without_an_end_of_line() -> None:
    gone, came = lines(BLOCK, *RANGE, MACHINES, SPOT, Change(("scaling", "idle_seconds"), 60.0))
    assert gone == ["    min: 20", "    - H200   # dear", "  spot:"]
    assert came == ["    min: 0", "    - 4xH100", "  spot: {max_fraction: 1.0}", "    idle_seconds: 60"]
    after = edited(BLOCK, "chat", [MACHINES], origin="", base=None)
    assert "# bought in May" in after
    assert "# not yet" in after
    assert after.endswith("name: chat")


@pytest.mark.parametrize(
    ("field", "came"),
    [
        ("replicas: 20", ["    replicas: {min: 0, max: 20}"]),
        ("replicas: 20..20", ["    replicas: {min: 0, max: 20}"]),
        ("min_replicas: 20", ["    min_replicas: 0", "    replicas: {max: 20}"]),
        ("replicas: {minReplicas: 20, max: 20}", ["    replicas: {minReplicas: 0, max: 20}"]),
    ],
)
def test_short_forms_and_other_stacks_names(field: str, came: list[str]) -> None:
    text = f"models:\n  - name: chat\n    source: hf://org/m\n    {field}\n"
    assert sorted(lines(text, *RANGE)[1]) == sorted(came)


def test_json_stays_json_and_line_ends_stay_line_ends() -> None:
    text = '{"models": [{"name": "chat", "source": "hf://org/m", "replicas": {"min": 20, "max": 20}}]}\r\n'
    after = edited(text, "chat", [*RANGE, MACHINES, SPOT], origin="", base=None)
    assert '"replicas": {"min": 0, "max": 20}, "accelerators": ["L40S", "4xH100"]' in after
    assert after.endswith("\r\n")
    crlf = FLOW.replace("\n", "\r\n")
    assert edited(crlf, "chat", [SPOT], origin="", base=None).count("\r\n") == crlf.count("\r\n") + 1


@pytest.mark.parametrize(
    "text",
    [
        "models:\n  - &a {name: chat, source: hf://o/m, accelerators: &x [H200]}\n"
        "  - {name: b, source: hf://o/m, accelerators: *x}\n",
        "models:\n  - name: chat\n    source: hf://o/m\n    accelerators: [H200, # dear\n      L4]\n",
        "models:\n  - name: chat\n    source: hf://o/m\n    accelerators:\n      - H200\n      -\n        L4\n",
    ],
    ids=["shared by an anchor", "comments inside a value", "an item over two lines"],
)
def test_what_is_unusual_is_refused(text: str) -> None:
    with pytest.raises(UnsafeEditError):
        edited(text, "chat", [MACHINES], origin="", base=None)


def test_a_field_that_a_merge_brings_is_overridden_for_this_model_alone() -> None:
    text = (
        "models:\n  - &a\n    name: other\n    source: hf://o/m\n    accelerators: [H200]\n"
        "  - <<: *a\n    name: chat\n"
    )  # fmt: skip
    after = parse_spec(edited(text, "chat", [MACHINES], origin="", base=None), origin="")
    assert [model.accelerators for model in after.models] == [("H200",), ("L40S", "4xH100")]


def test_lines_to_put_in_by_hand_are_a_valid_spec_of_these_fields() -> None:
    model = parse_spec(FLOW, origin="").models[0]
    text = snippet(model, [*RANGE, MACHINES, SPOT])
    assert text == (
        "models:\n  - name: chat\n    replicas: {min: 0, max: 20}\n    accelerators: [L40S, 4xH100]\n"
        "    spot: {max_fraction: 1.0}\n"
    )  # fmt: skip
    assert changed(model, [*RANGE, SPOT]).replicas.min == 0
