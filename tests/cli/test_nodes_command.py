"""`swell nodes`: from a spec to what kubectl applies."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

SPEC = """
models:
  - name: chat
    source: hf://meta-llama/Llama-3.1-8B-Instruct
    engine: vllm
    accelerators: [L4, A100-80GB]
    replicas: 0..5
    spot: {max_fraction: 0.5}
    objectives: {ttft_ms: 2000, itl_ms: 100}
providers:
  - {name: cluster, kind: kubernetes, platform: PLATFORM, region: us-east-1, images: {vllm: "vllm/vllm-openai:v0.11.0"}}
"""


def run(folder: Path, platform: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "swell.yaml").write_text(SPEC.replace("PLATFORM", platform))
    command = [sys.executable, "-m", "swell.cli.main", "nodes", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_a_pool_for_each_accelerator_and_market_that_is_listed(tmp_path: Path) -> None:
    ended = run(tmp_path, "eks", "--node-class", "gpu")
    assert ended.returncode == 0, ended.stderr
    pools = list(yaml.safe_load_all(ended.stdout))
    names = [pool["metadata"]["name"] for pool in pools]
    assert {"swell-l4-on-demand", "swell-l4-spot"} <= set(names)
    assert all(pool["spec"]["limits"] == {"nvidia.com/gpu": "5"} for pool in pools if "l4" in pool["metadata"]["name"])
    assert {pool["spec"]["template"]["spec"]["nodeClassRef"]["name"] for pool in pools} == {"gpu"}
    assert json.loads(run(tmp_path, "eks", "--node-class", "gpu", "--json").stdout) == pools


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    ended = run(tmp_path, "eks", "--place", "other")
    assert ended.returncode == 2
    assert "choose one provider of kind kubernetes with --place; there is: cluster" in ended.stderr
