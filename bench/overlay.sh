#!/usr/bin/env bash
# What a network costs, between two hosts beside a VXLAN made by hand, and on one host beside docker's bridge.
#
#   bench/overlay.sh [ROUNDS] [COLUMN...]   5 rounds of all columns unless given; `bench/overlay.sh help` lists them
#
# docs/PERFORMANCE.md says how it is measured. Needs root, and a machine that does nothing else. Variables: PATHS, a list
# of the paths to measure; DURATION, the seconds of a measurement (2); NUNCIO and LOAD, the programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../examples/images/oci.sh
. "$here/../examples/images/oci.sh"
# shellcheck source=common.sh
. "$here/common.sh"
# shellcheck source=engines.sh
. "$here/engines.sh"
# shellcheck source=peers.sh
. "$here/peers.sh"
# shellcheck source=overlay_paths.sh
. "$here/overlay_paths.sh"
# shellcheck source=overlay_columns.sh
. "$here/overlay_columns.sh"

stem=nuncio-bench-$$
all_paths=(vxlan veth overlay sealed around openssl openssl2 docker bridge)
all_columns=("${columns[@]}")
duration=${DURATION:-2}
rounds=5
declare -A holders=() first=()

main() {
    read_arguments "$@"
    prepare
    unpack_peers
    local path round up=()
    for path in "${paths[@]}"; do
        if "make_$path"; then
            serve "$path"
            up+=("$path")
        else
            echo "== without $path, which does not come up here: $(tail -qn 3 "$work"/log-"$(peer_host "$path")")"
        fi
    done
    paths=("${up[@]}")
    for ((round = 1; round <= rounds; round++)); do measure_all "${wanted[@]}"; done
    report overlay "$work/samples"
}

clean_up() {
    local status=$?
    trap - EXIT
    [ $status = 0 ] || [ -z "${work-}" ] || tail -qn 12 "$work"/log-* 2>/dev/null >&2 || true
    remove_servers
    remove_hosts
    remove_plain_hosts
    remove_disk
    exit $status
}

main "$@"
