#!/usr/bin/env bash
# Tests marked `services` use programs that root installs. Postgres is the only one: the store is tested on a real one. Each
# run starts a server of its own in a temporary folder, as another user than root, and ends it. Where no test has the mark
# any more, pytest fails with "deselected", and so does this.
set -euo pipefail
if ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && ! command -v postgres >/dev/null; then
  [ "$(id -u)" -eq 0 ] || { echo "Postgres is missing: install it (Debian: apt-get install postgresql) or run this as root" >&2; exit 1; }
  # Debian would otherwise make and start a server for the whole machine, which nobody asked for.
  mkdir -p /etc/postgresql-common/createcluster.d
  echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/swell.conf
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
fi
exec .venv/bin/python -m pytest -m services -rs tests
