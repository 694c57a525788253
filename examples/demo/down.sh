#!/usr/bin/env bash
# Takes down what demo.sh with KEEP=1, or one that was killed, left up.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"

need_root
take_down
echo "the demo is down"
