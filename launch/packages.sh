#!/usr/bin/env bash
# What only tests use of Debian, unless it is there already: Chromium to look at the report page with, nginx to read shards
# from. Usage: launch/packages.sh VENV (nginx is unpacked into it: no root, and no server is started)
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

get_nginx() {
    mkdir -p "$log.d" && cd "$log.d"
    apt-get -qq download nginx || { fresh_lists && apt-get -qq download nginx; } || return
    dpkg -x nginx_*.deb "$venv/nginx" && "$venv/nginx/usr/sbin/nginx" -v
}

venv=$(cd "$venv" && pwd)
if ! { command -v chromium && command -v chromedriver; } >/dev/null; then
    echo "installing chromium and chromium-driver for tests/report …"
    (get_chromium) >"$log" 2>&1 || { tail -n 3 "$log" >&2; missing chromium "chromium chromium-driver" tests/report; }
fi
if ! PATH=$PATH:/usr/sbin:$venv/nginx/usr/sbin command -v nginx >/dev/null; then
    echo "unpacking nginx for tests that read from a web server …"
    (get_nginx) >"$log" 2>&1 || { tail -n 3 "$log" >&2; missing nginx nginx "tests/base and tests/stream"; }
fi
