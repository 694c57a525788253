#!/usr/bin/env bash
# What a forwarder costs, beside the direct path and the forwarders people use today.
#
#   bench/run.sh [ROUNDS] [COLUMN...]     5 rounds of all columns unless given; `bench/run.sh help` lists them
#
# docs/PERFORMANCE.md says how it is measured. Needs root, and a machine that does nothing else. Variables: PATHS, a list
# of the paths to measure; DURATION, the seconds of a measurement (2); NUNCIO and LOAD, the programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../examples/images/oci.sh
. "$here/../examples/images/oci.sh"
# shellcheck source=common.sh
. "$here/common.sh"
# shellcheck source=net.sh
. "$here/net.sh"
# shellcheck source=peers.sh
. "$here/peers.sh"
# shellcheck source=forwarders.sh
. "$here/forwarders.sh"
# shellcheck source=columns.sh
. "$here/columns.sh"

all_paths=(direct rewrite nat nuncio haproxy haproxy-splice nginx docker-proxy socat)
all_columns=("${columns[@]}")
duration=${DURATION:-2}
rounds=5

main() {
    read_arguments "$@"
    [ "$(id -u)" = 0 ] || fail "namespaces need root: run it as root"
    ulimit -n 16384 || fail "2,500 flows through one process need 16,384 descriptors: raise the limit"
    NUNCIO=$(find_program "${NUNCIO:-nuncio}")
    LOAD=$(find_program "${LOAD:-nuncio-bench}")
    local path round
    drop_rewrite_unless_there
    work=$(mktemp -d)
    trap 'exit 130' INT TERM
    trap clean_up EXIT
    unpack_peers
    configure_peers
    wire
    make_cgroups
    serve chroot "$root" redis-server --protected-mode no --save '' --dir /tmp --maxclients 4000
    serve chroot "$root" iperf3 -s
    serve "$LOAD" serve "$server"
    wait_for direct
    for path in "${paths[@]}"; do start "$path"; done
    for path in "${paths[@]}"; do wait_for "$path"; done
    estimate
    for ((round = 1; round <= rounds; round++)); do measure_all "${wanted[@]}"; done
    report ambassador "$work/samples"
}

# The binary may not have it, or not yet.
drop_rewrite_unless_there() {
    [[ " ${paths[*]} " == *" rewrite "* ]] || return 0
    "$NUNCIO" ambassador --help | grep -q -e --direct-cgroup && return
    echo "== without the path rewrite: $NUNCIO ambassador has no --direct-cgroup"
    local path kept=()
    for path in "${paths[@]}"; do [ "$path" = rewrite ] || kept+=("$path"); done
    paths=("${kept[@]}")
}

estimate() {
    local column tenths=0
    for column in "${wanted[@]}"; do
        for path in "${paths[@]}"; do
            ! does "$path" "$column" || tenths=$((tenths + $(column_time "$column")))
        done
    done
    echo "== rounds: $rounds, columns: ${#wanted[@]}, paths: ${#paths[@]}; about $((rounds * tenths / 600 + 1)) min"
}

# The rules of published ports are there only for their own path.
measure() {
    [ "$1" != nat ] || nat_on
    "measure_$2" "$1"
    [ "$1" != nat ] || nat_off
}

clean_up() {
    local status=$? name
    trap - EXIT
    # Each namespace is ours alone, so whatever is in it was started here.
    for name in client server middle; do
        [ -e "/run/netns/$stem-$name" ] || continue
        ip netns pids "$stem-$name" | xargs -r kill -KILL || true
        ip netns del "$stem-$name"
    done
    if [ -d "${cgroup-}" ]; then
        for name in "${paths[@]}"; do stop "$name"; done
        find "$cgroup" -depth -type d -exec rmdir {} \;
    fi
    rm -rf "$work"
    exit $status
}

main "$@"
