#!/usr/bin/env bash
# The browser that the tests look at the report page with: Debian's Chromium, unless one is on the PATH already.
set -euo pipefail
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
    exit 0
fi
by_hand="install Chromium and its driver by hand (on Debian: apt-get install chromium chromium-driver)"
if ! command -v apt-get >/dev/null; then
    echo "no chromium on PATH and no apt-get here: $by_hand; only tests/report needs it" >&2
    exit 0
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
        echo "no chromium on PATH and no right to install it: $by_hand; only tests/report needs it" >&2
        exit 0
    fi
    as_root=(sudo -n)
fi
echo "installing chromium and chromium-driver for tests/report …"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get -qq update && "${as_root[@]}" apt-get -qq install -y --no-install-recommends chromium chromium-driver; } >"$log" 2>&1; then
    tail -n 3 "$log" >&2
    echo "chromium could not be installed: $by_hand; only tests/report needs it" >&2
fi
