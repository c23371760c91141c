#!/usr/bin/env bash
# Tests marked `services` use programs that root installs: Postgres, which the store is tested on, and dockerd, which
# replicas run in, with the registry that images are pulled from. Each run starts servers of its own in temporary folders,
# Postgres as another user than root, and ends them. Where no test has the mark any more, pytest fails with "deselected",
# and so does this.
set -euo pipefail

need() { # need PACKAGES… : Debian packages that are missing are installed, where root asks
  [ "$(id -u)" -eq 0 ] || { echo "missing: $* (Debian: apt-get install $*, or run this as root)" >&2; exit 1; }
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && ! command -v postgres >/dev/null; then
  # Debian would otherwise make and start a server for the whole machine, which nobody asked for.
  mkdir -p /etc/postgresql-common/createcluster.d 2>/dev/null || true
  echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/swell.conf 2>/dev/null || true
  need postgresql
fi

# The same for daemons: while this file says so, Debian starts none that it installs.
PATH=$PATH:/usr/sbin:/sbin
missing=()
command -v dockerd >/dev/null && command -v iptables >/dev/null || missing+=(docker.io iptables)
command -v docker-registry >/dev/null || missing+=(docker-registry)
if [ "${#missing[@]}" -gt 0 ]; then
  quiet=/usr/sbin/policy-rc.d made=
  [ "$(id -u)" -ne 0 ] || [ -e "$quiet" ] || { printf '#!/bin/sh\nexit 101\n' >"$quiet"; chmod +x "$quiet"; made=yes; }
  trap '[ -z "$made" ] || rm -f "$quiet"' EXIT
  need "${missing[@]}"
  [ -z "$made" ] || rm -f "$quiet"
  trap - EXIT
fi

# The base of every image in these tests: Debian with Python, made of its packages, since no registry is asked.
base=.cache/containers/base.tar
if [ ! -f "$base" ]; then
  command -v mmdebstrap >/dev/null || need mmdebstrap
  mkdir -p "$(dirname "$base")"
  rm -rf "$base"
  made=${base%.tar}-new.tar  # by its ending mmdebstrap tells that an archive is wanted, and not a folder
  mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates,libgomp1,libstdc++6 bookworm "$made"
  mv "$made" "$base"
fi

.venv/bin/python -m pytest -m services -rs tests
