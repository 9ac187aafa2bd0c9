#!/usr/bin/env bash
# What only tests use of Debian, unless it is there already: Chromium to look at the report page with, nginx to read shards
# from, and ssh, pdsh and SLURM for hosts of their own. Usage: launch/packages.sh VENV
# All but Chromium is unpacked into VENV/debian: no root, no service is started, no user is made, /etc stays as it is.
set -euo pipefail
venv=${1:?usage: launch/packages.sh VENV}
log=$(mktemp)
trap 'rm -rf "$log" "$log.d"' EXIT
export DEBIAN_FRONTEND=noninteractive

as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo -n)
fi
missing() { echo "no $1 on PATH and it cannot be installed: install it by hand (on Debian: apt-get install $2); only $3 needs it" >&2; }
fresh_lists() { "${as_root[@]}" apt-get -qq update; }

get_chromium() { fresh_lists && "${as_root[@]}" apt-get -qq install -y --no-install-recommends chromium chromium-driver; }

download() {
    apt-get -qq install -y --download-only --no-install-recommends \
        -o Debug::NoLocking=1 -o "Dir::Cache::archives=$log.d" "$@"
}

unpack() {
    mkdir -p "$log.d/partial"
    download "$@" || { fresh_lists && download "$@"; } || return
    for package in "$log.d"/*.deb; do
        dpkg -x "$package" "$log.d/tree" || return
    done
    rm -rf "$log.d"/tree/usr/share
    # An installation would give these their names, and slurmd looks for its helper under this one.
    for program in "$log.d"/tree/usr/sbin/*-wlm; do
        [ ! -e "$program" ] || ln -sf "$(basename "$program")" "${program%-wlm}"
    done
    mkdir -p "$venv/debian" && cp -a "$log.d/tree/." "$venv/debian"
}

all_there() {
    local program
    for program in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin:$venv/debian/usr/bin:$venv/debian/usr/sbin command -v "$program" >/dev/null || return
    done
}

venv=$(cd "$venv" && pwd)
if ! all_there chromium chromedriver; then
    echo "installing chromium and chromium-driver for tests/report …"
    (get_chromium) >"$log" 2>&1 || { tail -n 3 "$log" >&2; missing chromium "chromium chromium-driver" tests/report; }
fi
if ! all_there nginx; then
    echo "unpacking nginx for tests that read from a web server …"
    (unpack nginx) >"$log" 2>&1 || { tail -n 3 "$log" >&2; missing nginx nginx "tests/base and tests/stream"; }
    rm -rf "$log.d"
fi
if ! all_there sshd pdsh ip pkill slurmctld slurmd sbatch munged; then
    packages="openssh-server pdsh iproute2 procps slurmctld slurmd slurm-client munge"
    echo "unpacking ssh, pdsh and SLURM for tests on hosts of their own …"
    # shellcheck disable=SC2086  # one word each
    (unpack $packages) >"$log" 2>&1 || { tail -n 3 "$log" >&2; missing "ssh server, pdsh or SLURM" "$packages" tests/cluster; }
fi
