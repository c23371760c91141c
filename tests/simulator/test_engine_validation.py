"""The simulated engine against measured vLLM servers: closed loops at the measured concurrency, mean TPOT and TTFT.

Profiles are the fits of operator data (they know nothing of the measured servers). A benchmark sends ten requests per
client, with lengths spread by a tenth so that clients do not run in lockstep, and the first burst counts, as in the
measurements. `pytest -s` prints the errors. Where they are large: the 8B on an H200 was probably measured with
an 8-bit KV cache and answers faster than the 16-bit one of its fit allows; fits of B200 are slow by 10 to 25 %.
"""

import csv
import gzip
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from swell.simulator.engine import Engine, Job
from swell.state.scaling import LatencyProfile

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MEASURED = DATA / "aiconfigurator" / "silicon_sample.csv.gz"
FITS = DATA / "derived" / "latency_fits.csv"
USABLE_GIB = {"h100_sxm": 79.6, "h200_sxm": 140.4, "b200_sxm": 178.0}
ROUNDS = 10  # requests per client
SPREAD = 0.1  # of the lengths
SEED = 7
MAX_TPOT_ERROR = 0.15
MAX_TTFT_ERROR = 0.35
LIMITS = {  # of TPOT, where the fit belongs to what was measured; a third above what was found
    "Llama-3.1-70B fp8 h100_sxm": 0.06,
    "Llama-3.1-70B fp8 h200_sxm": 0.06,
    "Llama-3.1-70B fp8 b200_sxm": 0.20,
    "Qwen3-32B bf16 h100_sxm": 0.20,
}


@dataclass(frozen=True)
class Point:
    """One measured server, and the profile that fits it."""

    group: str
    profile: LatencyProfile
    clients: int
    prompt: int
    output: int
    ttft_ms: float
    tpot_ms: float


@pytest.mark.shared_data
def test_mean_times_per_token_agree_with_measured_vllm_servers() -> None:
    points = _points()
    assert len(points) >= 150
    tpot, ttft = defaultdict(list), defaultdict(list)
    for point in points:
        simulated_ttft, simulated_tpot = _closed_loop(point)
        for group in ("all", point.group):
            tpot[group].append(simulated_tpot / point.tpot_ms - 1)
            ttft[group].append(simulated_ttft / point.ttft_ms - 1)
    errors = {group: (_median_error(tpot[group]), _median_error(ttft[group])) for group in tpot}
    for group, (tpot_error, ttft_error) in sorted(errors.items()):
        print(f"{group:36} {len(tpot[group]):4} points  TPOT off by {tpot_error:.3f}  TTFT off by {ttft_error:.3f}")
    assert errors["all"][0] <= MAX_TPOT_ERROR, errors
    assert errors["all"][1] <= MAX_TTFT_ERROR, errors
    for group, limit in LIMITS.items():
        assert errors[group][0] <= limit, (group, errors)


def _median_error(ratios: list[float]) -> float:
    return float(np.median(np.abs(ratios)))


def _closed_loop(point: Point) -> tuple[float, float]:
    """Mean TTFT and mean TPOT in milliseconds."""
    dice = random.Random(SEED)
    engine = Engine(point.profile, 0.0)
    total, sent = point.clients * ROUNDS, 0
    outputs: dict[int, int] = {}

    def send(now: float) -> None:
        nonlocal sent
        prompt = round(point.prompt * dice.uniform(1 - SPREAD, 1 + SPREAD))
        outputs[sent] = round(point.output * dice.uniform(1 - SPREAD, 1 + SPREAD))
        engine.submit(Job(sent, now, prompt, outputs[sent], 1e9), now)
        sent += 1

    for _ in range(point.clients):
        send(0.0)
    ttft, tpot = [], []
    while len(ttft) < total:
        now = engine.next_event()
        for job in engine.run_to(now):
            ttft.append(job.first_at - job.arrival)
            tpot.append((now - job.first_at) / (outputs[job.index] - 1))
            if sent < total:
                send(now)
    return 1000 * float(np.mean(ttft)), 1000 * float(np.mean(tpot))


def _points() -> list[Point]:
    if not MEASURED.exists() or not FITS.exists():
        pytest.skip(
            f"no data set at {MEASURED}; lay the project's shared data set beside the checkout, as ../shared/data"
        )
    with FITS.open() as file:
        fits = {(_model(row["model"]), row["precision"], row["gpu"], row["tp"]): row for row in csv.DictReader(file)}
    found = []
    with gzip.open(MEASURED, "rt") as measured:
        for row in csv.DictReader(measured):
            model, precision = _model(row["model_path"]), row["precision"] or "bf16"
            fit = fits.get((model, precision, row["system"], row["tp_size"]))
            is_dense = model in ("Llama-3.1-8B", "Llama-3.1-70B", "Qwen3-32B")
            wanted = (row["backend"], row["mode"]) == ("vllm", "agg") and is_dense and row["system"] in USABLE_GIB
            if wanted and fit is not None and fit["fits_in_memory"] == "1":
                found.append(_point(f"{model} {precision} {row['system']}", row, fit))
    return found


def _model(path: str) -> str:
    return path.rsplit("/", 1)[-1].removeprefix("Meta-").removesuffix("-Instruct-FP8")


def _point(group: str, row: dict[str, str], fit: dict[str, str]) -> Point:
    free_gib = 0.9 * USABLE_GIB[row["system"]] - float(fit["mem_gib_batch1_per_gpu"])
    profile = LatencyProfile(
        model=_model(row["model_path"]),
        accelerator=row["system"],
        accelerator_count=int(row["tp_size"]),
        prefill_fixed_ms=float(fit["prefill_a_ms"]),
        prefill_ms_per_token=float(fit["prefill_b_ms_per_tok"]),
        prefill_ms_per_token2=float(fit["prefill_c_ms_per_tok2"]),
        step_fixed_ms=float(fit["decode_alpha_ms"]),
        step_ms_per_sequence=float(fit["decode_beta_ms_per_seq"]),
        step_ms_per_context_token=float(fit["decode_gamma_ms_per_seqtok"]),
        kv_tokens=int(free_gib * 2**20 / float(fit["kv_kib_per_token_per_gpu"])),
        chunk_tokens=8192,  # what vLLM takes on these accelerators by default
    )
    clients, prompt, output = int(row["batch_size"]), int(row["isl"]), int(row["osl"])
    measured = float(row["silicon_ttft_ms"]), float(row["silicon_tpot_ms"])
    return Point(group, profile, clients, prompt, output, *measured)
