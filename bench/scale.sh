#!/usr/bin/env bash
# What a host has to do, and to hold in its kernel, in meshes of several sizes.
#
#   bench/scale.sh [HOSTS...]   5 10 20 35 50 unless given, in rising order
#
# Two hosts are real, network namespaces on this machine. The others are in the registry alone, with their blocks of 20 networks
# and 40 containers each. One of the real hosts has a container in each network; it is looked at. docs/PERFORMANCE.md tells more.
# Needs root. Variables: NUNCIO and LOAD, the programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../examples/images/oci.sh
. "$here/../examples/images/oci.sh"
# shellcheck source=common.sh
. "$here/common.sh"
# shellcheck source=engines.sh
. "$here/engines.sh"
# shellcheck source=overlay_paths.sh
. "$here/overlay_paths.sh"
# shellcheck source=overlay_columns.sh
. "$here/overlay_columns.sh"

stem=nuncio-bench-$$
networks=20
each=40
declare -A holders=() first=()
simulated='' staying=''

main() {
    sizes=("$@")
    [ $# -gt 0 ] || sizes=(5 10 20 35 50)
    for size in "${sizes[@]}"; do
        [[ $size =~ ^[1-9][0-9]{0,3}$ ]] || fail "'$size' hosts: give numbers from 1 to 9999"
    done
    prepare
    make_nuncio_hosts || fail "the hosts do not come up: $(tail -qn 3 "$work"/log-nuncio-*)"
    local number size
    for ((number = 1; number <= networks; number++)); do
        engine nuncio-a network create -d overlay "n$number" >/dev/null
    done
    for ((number = 1; number <= networks; number++)); do
        until_true 10 engine nuncio-b network inspect "n$number" || fail "network n$number is not known to the other host"
        stand nuncio-b "c$number" --network "n$number"
    done
    row hosts containers 'learnt, ms' 'resync, ms' routes neighbours 'FDB entries' links 'nft, KiB' 'gone, ms'
    for size in "${sizes[@]}"; do measure_size "$size"; done
}

# row WORD... : of the table.
row() {
    printf '%6s %10s %12s %12s %8s %8s %12s %8s %8s %10s\n' "$@"
}

# measure_size HOSTS
measure_size() {
    local hosts=$1 learnt resynced gone start objects
    mkfifo "$work/over"
    nsenter --net="/run/netns/$stem-nuncio-a" "$LOAD" mesh http://198.18.2.1:2379 --hosts "$hosts" \
        --endpoints $((hosts * each)) <"$work/over" >"$work/entered" 2>>"$work/log-mesh" &
    simulated=$!
    # Not the script itself, of which whoever it starts would inherit that end.
    sleep 864000 >"$work/over" &
    staying=$!
    disown
    until_true 120 test -s "$work/entered" || fail "the hosts are not entered: $(tail -n 3 "$work/log-mesh")"
    start=$(milliseconds)
    until_true 30 knows "$hosts" || fail "the host knows $(rows) rows of $((hosts * networks))"
    learnt=$(since "$start")
    settle
    objects=$(count)
    kill_daemon
    remove_devices
    ! knows "$hosts" || fail "the devices are still there"
    start=$(milliseconds)
    start nuncio-b "${daemon_b[@]}"
    until_true 60 knows "$hosts" || fail "the host does not come back"
    resynced=$(since "$start")
    until_true 30 engine nuncio-b ps
    kill "$staying"
    wait "$simulated"
    simulated='' staying=''
    rm "$work/over" "$work/entered"
    start=$(milliseconds)
    until_true 60 knows 0 || fail "the host keeps $(rows) rows of hosts that are gone"
    gone=$(since "$start")
    # shellcheck disable=SC2086 # words
    row "$hosts" $((hosts * each)) "$learnt" "$resynced" $objects "$gone"
}

daemon_b=(/bench/nuncio daemon --data-root /var/lib/nuncio --exec-root /run/nuncio -H unix:///run/engine.sock
    --advertise-addr 198.18.2.2 --node-name b --registry http://198.18.2.1:2379)

# rows : of hosts that are simulated. The real one has a row in the default network.
rows() {
    bridge -n "$stem-nuncio-b" fdb show | grep -c ' dst 198\.18\.1' || true
}

# knows HOSTS : has a row for each of them in each network.
knows() {
    [ "$(rows)" = $(($1 * networks)) ]
}

# Waits until a second look finds what the first one did.
settle() {
    local before=
    until [ "$before" = "$(count)" ]; do
        before=$(count)
        sleep 0.5
    done
}

# Routes, neighbours, FDB entries, links, and KiB of rules.
count() {
    local net=$stem-nuncio-b
    echo "$(ip -n "$net" -4 route | wc -l) $(ip -n "$net" neigh show nud permanent | wc -l) $(rows)" \
        "$(ip -n "$net" -o link | wc -l)" \
        "$(nsenter --net="/run/netns/$net" nft -s list ruleset | wc -c | awk '{ printf "%.0f", $1 / 1024 }')"
}

kill_daemon() {
    pkill -KILL --ns "${first[nuncio-b]}" --nslist pid -f '^/bench/nuncio daemon'
    until_true 10 has_no_daemon || fail "the daemon does not end"
}

has_no_daemon() {
    ! pgrep --ns "${first[nuncio-b]}" --nslist pid -f '^/bench/nuncio daemon'
}

# With a VXLAN device go its routes, neighbours and FDB entries.
remove_devices() {
    local device
    for device in $(ip -n "$stem-nuncio-b" -br link show type vxlan | cut -d' ' -f1); do
        ip -n "$stem-nuncio-b" link del "$device"
    done
}

clean_up() {
    local status=$?
    trap - EXIT
    [ $status = 0 ] || [ -z "${work-}" ] || tail -qn 12 "$work"/log-* 2>/dev/null >&2 || true
    [ -z "$staying" ] || kill "$staying" 2>/dev/null || true
    [ -z "$simulated" ] || kill "$simulated" 2>/dev/null || true
    remove_hosts
    remove_plain_hosts
    remove_disk
    exit $status
}

main "$@"
