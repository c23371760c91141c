#!/usr/bin/env bash
# Tests marked `services` use programs that root installs. nginx is the only one: the benchmark's smoke test compares with it.
set -euo pipefail
if ! .venv/bin/python -m pytest --collect-only -m services -o addopts="-q --strict-markers" tests >/dev/null 2>&1; then
  echo "test-services: no test needs a service yet"
  exit 0
fi
if ! command -v nginx >/dev/null; then
  [ "$(id -u)" -eq 0 ] || { echo "nginx is missing: install it (Debian: apt-get install nginx) or run this as root" >&2; exit 1; }
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx >/dev/null
fi
exec .venv/bin/python -m pytest -m services -rs tests
