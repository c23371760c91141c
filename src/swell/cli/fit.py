"""`swell plan --fit`."""

from pathlib import Path
from typing import TYPE_CHECKING

from swell.cli.output import print_json, print_table
from swell.errors import UserError

if TYPE_CHECKING:
    from swell.server.fitting import Candidate
    from swell.state.model_shapes import ModelShape

_GIB = 1024**3
_BILLION = 1e9


def plan_fit(
    model: str,
    accelerators: list[str] | None,
    context_tokens: int | None,
    weight_bits: int | None,
    kv_bits: int,
    prices: Path | None,
    *,
    nodes: int,
    as_json: bool,
) -> None:
    """On what the model fits, and the arithmetic. Exits with an error where it fits nothing of what was asked for."""
    from swell.server import fitting
    from swell.state import catalogue

    shape = fitting.shape_of(model, None if weight_bits is None else float(weight_bits))
    listed = None if prices is None else catalogue.load_prices(prices)
    found = fitting.candidates(
        shape, accelerators, context_tokens=context_tokens, kv_bits=kv_bits, among=listed, nodes=nodes
    )
    if as_json:
        print_json(fitting.document(shape, found))
    else:
        _print(shape, found)
    if not any(each.fit.fits for each in found):
        wider = None if nodes > 1 else fitting.over_nodes(shape, accelerators, context_tokens, kv_bits, listed)
        hint = f"; over {wider.name} it would: --nodes {wider.fit.nodes}" if wider is not None else ""
        raise UserError(f"{shape.name} fits nothing of that; the last column says what each lacks{hint}")


def _print(shape: "ModelShape", found: "list[Candidate]") -> None:
    from swell.policy.fit import UTILISATION
    from swell.server.fitting import launch_arguments

    counted = ", counted from its config" if shape.is_estimated else ""
    print(
        f"{shape.name}: {shape.parameters / _BILLION:.2f} billion parameters{counted}, weights of "
        f"{shape.weight_bits:g} bits take {shape.bytes_of_weights / _GIB:.1f} GiB; {shape.layers} layers, "
        f"{shape.heads} heads, {shape.kv_heads} for keys and values"
    )
    print(f"GiB of one accelerator: {UTILISATION:g} x memory - weights - other = KV cache")
    print_table(
        ("replica", "usd/h", "memory", "weights", "other", "KV cache", "KiB/token", "tokens", "at once", "why not"),
        [
            (
                each.name, "" if each.usd_per_hour is None else f"{each.usd_per_hour:.2f}",
                f"{each.fit.memory_gib:g}", f"{each.fit.weights_gib:.1f}", f"{each.fit.other_gib:.1f}",
                f"{each.fit.kv_gib:.1f}", f"{each.fit.kv_bytes_per_token / 1024:.1f}", f"{each.fit.kv_tokens:,}",
                each.fit.sequences if each.fit.fits else "", each.fit.why_not,
            )
            for each in found
        ],
        empty="No accelerator was named.",
    )  # fmt: skip
    first = next((each for each in found if each.fit.fits), None)
    if first is not None:
        words = "cheapest" if first.usd_per_hour is not None else "first"
        print(f"The {words} that fits is {first.name}; for vLLM:")
        if first.fit.nodes > 1:
            print(f"  nodes: {first.fit.nodes}")
        print("  engine_args: [" + ", ".join(f'"{word}"' for word in launch_arguments(shape, first.fit)) + "]")
