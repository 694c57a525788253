#!/usr/bin/env bash
# How soon a container's name server answers, beside dnsmasq in the same network namespace.
#
#   bench/dns.sh [ROUNDS]   5 rounds unless given, of each in turn
#
# Needs root, and a machine that does nothing else. Variables: DURATION, the seconds of a measurement (2); NUNCIO and LOAD,
# the programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../examples/images/oci.sh
. "$here/../examples/images/oci.sh"
# shellcheck source=common.sh
. "$here/common.sh"

stem=nuncio-bench-$$
rounds=${1:-5}
duration=${DURATION:-2}
declare -A address=([nuncio]=127.0.0.11 [dnsmasq]=127.0.0.12)
servers=(nuncio dnsmasq)
# As many names as a host of some size has containers.
names=1000
pids=()

main() {
    [ "$(id -u)" = 0 ] || fail "namespaces need root: run it as root"
    [[ $rounds =~ ^[1-9][0-9]*$ ]] || fail "ROUNDS is '$rounds': give 1 or more"
    [[ $duration =~ ^[1-9][0-9]?$ ]] || fail "DURATION is '$duration': give seconds from 1 to 99"
    NUNCIO=$(find_program "${NUNCIO:-nuncio}")
    LOAD=$(find_program "${LOAD:-nuncio-bench}")
    trap 'exit 130' INT TERM
    trap clean_up EXIT
    unpack_dnsmasq
    work=$(mktemp -d)
    ip netns add "$stem"
    ip -n "$stem" link set lo up
    start_dnsmasq
    start_nuncio
    local round server
    for server in "${servers[@]}"; do comes_up "$server"; done
    for ((round = 1; round <= rounds; round++)); do
        for server in "${servers[@]}"; do
            ask "$server" 1 >>"$work/$server.1"
            ask "$server" 50 >>"$work/$server.50"
        done
    done
    printf '| name server | p50, 1 under way | p99, 1 under way | answers a second, 50 under way |\n|---|---|---|---|\n'
    for server in "${servers[@]}"; do
        printf '| %s | %s µs | %s µs | %s |\n' "$server" "$(of_column 1 "$work/$server.1")" "$(of_column 2 "$work/$server.1")" \
            "$(of_column 3 "$work/$server.50")"
    done
}

# Debian's dnsmasq, unpacked and not installed, so that it is not started.
unpack_dnsmasq() {
    root=$here/../target/bench-dnsmasq
    local made
    made=$(oci_recipe_id "$here/../examples/images/oci.sh" "$here/dns.sh")
    if [ "$(cat "$root/made" 2>/dev/null)" != "$made" ]; then
        echo "== unpack dnsmasq" >&2
        rm -rf "$root"
        oci_debian_root "$root" "adduser debconf init-system-helpers lsb-base dbus libdbus-1-3-dev" dnsmasq-base
        echo "$made" >"$root/made"
    fi
    root=$(realpath "$root")
}

start_dnsmasq() {
    local name
    for ((name = 0; name < names; name++)); do
        echo "10.0.$((name / 250)).$((name % 250 + 1)) c$name"
    done >"$work/hosts"
    LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu \
        ip netns exec "$stem" "$root/usr/sbin/dnsmasq" --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts \
        --addn-hosts="$work/hosts" --user=root --group=root --pid-file= --bind-interfaces --cache-size=10000 \
        --listen-address="${address[dnsmasq]}" --except-interface=none >"$work/dnsmasq.log" 2>&1 &
    pids+=($!)
}

start_nuncio() {
    ip netns exec "$stem" "$NUNCIO" ambassador --names --admin "unix://$work/ambassador.sock" >"$work/nuncio.log" 2>&1 &
    pids+=($!)
    local name separator=
    {
        printf '{"zones":{"n":{"domain":"mesh","names":{'
        for ((name = 0; name < names; name++)); do
            printf '%s"c%s":["10.0.%s.%s"]' "$separator" $name $((name / 250)) $((name % 250 + 1))
            separator=,
        done
        printf '}}},"subscribers":[{"id":"a","netns":"/run/netns/%s","networks":["n"]}]}' "$stem"
    } >"$work/names.json"
    local deadline=$((SECONDS + 10))
    until [ -S "$work/ambassador.sock" ]; do
        [ $SECONDS -lt $deadline ] || fail "the ambassador does not start: $(cat "$work/nuncio.log")"
        sleep 0.05
    done
    curl -sfS --unix-socket "$work/ambassador.sock" -X PUT -H 'content-type: application/json' \
        --data-binary @"$work/names.json" http://ambassador/names
}

comes_up() {
    local deadline=$((SECONDS + 10))
    until ip netns exec "$stem" ss -Hlun | grep -q "${address[$1]}:53 "; do
        [ $SECONDS -lt $deadline ] || fail "$1 does not listen: $(cat "$work/$1.log")"
        sleep 0.05
    done
}

# ask SERVER OUTSTANDING
ask() {
    ip netns exec "$stem" "$LOAD" dns "${address[$1]}:53" c500 --outstanding "$2" --seconds "$duration"
}

# of_column NUMBER FILE : the median of a column.
of_column() {
    awk -v column="$1" '{ print $column }' "$2" | median
}

clean_up() {
    local status=$? pid
    trap - EXIT
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    ip netns del "$stem" 2>/dev/null || true
    [ -z "${work-}" ] || rm -rf "$work"
    exit $status
}

main
