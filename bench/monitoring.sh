#!/usr/bin/env bash
# What it costs to be looked at: a relayed link and an overlay while nobody looks, and while somebody looks at all there is.
#
#   bench/monitoring.sh [ROUNDS] [COLUMN...]   5 rounds of all columns unless given; `bench/monitoring.sh help` lists them
#
# docs/PERFORMANCE.md says how it is measured. Needs root, and a machine that does nothing else. Variables: PATHS, a list
# of what is measured; DURATION, the seconds of a measurement (2); CONTAINERS at rest (200), with ten links each; NUNCIO and
# LOAD, the programs.
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
all_paths=(off on)
all_columns=(overlay link flows rest)
duration=${DURATION:-2}
containers=${CONTAINERS:-200}
links_each=10
rounds=5
declare -A holders=() first=()
daemon_flags=(--metrics-addr 127.0.0.1:9100)
watchers=()

main() {
    read_arguments "$@"
    [[ $containers =~ ^[1-9][0-9]{0,3}$ ]] || fail "CONTAINERS is '$containers': give 1 to 9999"
    find_program curl >/dev/null
    prepare
    unpack_peers
    make_overlay || fail "the hosts do not come up: $(tail -qn 3 "$work"/log-nuncio-*)"
    serve overlay
    make_link
    [[ " ${wanted[*]} " != *" rest "* ]] || stand_at_rest
    for ((round = 1; round <= rounds; round++)); do measure_all "${wanted[@]}"; done
    tell
}

# The medians, and the one with somebody looking as a multiple of the other, of rates, or the difference, of shares.
tell() {
    local figure off on
    printf '| figure | nobody looks | somebody does | |\n|---|--:|--:|--:|\n'
    for figure in "${wanted[@]}"; do
        off=$(median_of off "$figure") on=$(median_of on "$figure")
        [ -n "$off" ] && [ -n "$on" ] || continue
        case $figure in
            rest) awk "BEGIN { printf \"| %s, %% of a core | %.1f | %.1f | + %.1f |\\n\", \"$figure\", $off, $on, $on - $off }" ;;
            flows) awk "BEGIN { printf \"| %s a second | %.0f | %.0f | %.3f |\\n\", \"$figure\", $off, $on, $on / $off }" ;;
            *) awk "BEGIN { printf \"| %s, Gb/s | %.2f | %.2f | %.3f |\\n\", \"$figure\", $off / 1e9, $on / 1e9, $on / $off }" ;;
        esac
    done
}

# median_of PATH FIGURE
median_of() {
    awk -F '\t' -v path="$1" -v figure="$2" '$2 == path && $3 == figure { print $4 }' "$work/samples" | median
}

does() { true; }

# A server of the default network, and who is linked to it on the other host.
make_link() {
    stand nuncio-b store --expose 5201 --expose 5301 --expose 6379
    stand nuncio-a web --link store:db
    client_net[link]=$(net_of nuncio-a web)
    server_net[link]=$(net_of nuncio-b store)
    server_address[link]=$(address_of nuncio-b store bridge)
    serve link
    server_address[link]=$(engine nuncio-a exec web sh -c "awk '/\tdb/ { print \$1; exit }' /etc/hosts")
}

# Containers that do nothing, each linked to ten of the other host.
stand_at_rest() {
    local number links=()
    for ((number = 1; number <= links_each; number++)); do
        stand nuncio-b "s$number" --expose 6379
        links+=(--link "s$number:s$number")
    done
    for ((number = 1; number <= containers; number++)); do stand nuncio-a "c$number" "${links[@]}"; done
    until_true 120 is_at_rest || fail "the host with the containers does not come to rest"
}

# Whether what they were begun with is over.
is_at_rest() {
    local before
    before=$(ticks)
    sleep 2
    [ $(($(ticks) - before)) -lt 10 ]
}

# look on | off : somebody, or nobody, looks at the metrics, the figures and events of all containers, and the page.
look() {
    local host socket
    [ "$1" != off ] || { look_away && return; }
    [ ${#watchers[@]} = 0 ] || return 0
    for host in nuncio-a nuncio-b; do
        socket=/proc/${first[$host]}/root/run/engine.sock
        again nsenter --net="/run/netns/$stem-$host" curl -sf http://127.0.0.1:9100/metrics
        again curl -sfN --unix-socket "$socket" http://localhost/events
        again curl -sfN --unix-socket "$socket" http://localhost/nuncio/v1/stats
        # Frames are taken as they come.
        again curl -sN --unix-socket "$socket" -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
            -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
            http://localhost/nuncio/v1/dashboard/live
    done
    # Until all have been answered once.
    sleep 2
}

# again PROGRAM... : once a second, or as soon as it ends.
again() {
    setsid bash -c 'while :; do "$@" >/dev/null 2>&1; sleep 1; done' again "$@" &
    watchers+=($!)
    disown
}

look_away() {
    local watcher
    for watcher in "${watchers[@]}"; do kill -- "-$watcher" 2>/dev/null || true; done
    watchers=()
}

# What one stream of the overlay carries, past all relays.
measure_overlay() { carry "$1" overlay overlay; }

# The same of a link, which the host's ambassador relays.
measure_link() { carry "$1" link link; }

# carry PATH FIGURE NETWORK
carry() {
    look "$1"
    client "$3" chroot "$root" iperf3 -c "${server_address[$3]}" -t "$duration" -J >"$work/iperf" ||
        fail "iperf3 by $3: $(sed -n 's/.*"error"://p' "$work/iperf")"
    sample "$2" "$(sed -n '/"sum_received"/,/}/s/.*"bits_per_second":[[:space:]]*\([0-9.e+]*\).*/\1/p' "$work/iperf")"
}

# Connections a second by the link: each is one that is told.
measure_flows() {
    look "$1"
    sample flows "$(client link "$LOAD" connect "${server_address[link]}:5301" --seconds "$duration")"
}

# The share of one core, in percent, that a host takes whose containers do nothing.
measure_rest() {
    local before after
    look "$1"
    before=$(ticks)
    sleep 20
    after=$(ticks)
    sample rest "$(awk "BEGIN { printf \"%.2f\", ($after - $before) / $(getconf CLK_TCK) / 20 * 100 }")"
}

# Of the daemon and the ambassador of the host with the containers, in user space and in the kernel.
ticks() {
    local pid sum=0
    for pid in $(pgrep --ns "${first[nuncio-a]}" --nslist pid -f '^/bench/nuncio (daemon|ambassador)'); do
        sum=$((sum + $(awk '{ sub(".*[)] ", ""); print $12 + $13 }' "/proc/$pid/stat")))
    done
    echo "$sum"
}

clean_up() {
    local status=$?
    trap - EXIT
    [ $status = 0 ] || [ -z "${work-}" ] || tail -qn 12 "$work"/log-* 2>/dev/null >&2 || true
    look_away
    remove_servers
    remove_hosts
    remove_plain_hosts
    remove_disk
    exit $status
}

main "$@"
