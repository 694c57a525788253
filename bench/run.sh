#!/usr/bin/env bash
# What a forwarder costs: redis with 50 clients, and one TCP stream, directly and through nuncio, socat and haproxy.
#
#   bench/run.sh [ROUNDS]      5 rounds unless given; about half a minute each
#
# Client, forwarder and server stand in three namespaces joined by veth, so no wire is measured. The paths are measured
# in turn in each round, so that a machine's moods meet all of them alike. Ratios mean more than figures.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../examples/images/oci.sh
. "$here/../examples/images/oci.sh"

NUNCIO=$(realpath "${NUNCIO:-$(command -v nuncio || echo nuncio)}")
rounds=${1:-5}
paths=(direct nuncio socat haproxy)
stem=nuncio-bench-$$
server=198.18.1.2
middle=198.18.0.2
# Each forwarder listens on ports of its own for redis and for iperf3.
declare -A redis_port=([direct]=6379 [nuncio]=7001 [socat]=7002 [haproxy]=7003)
declare -A iperf_port=([direct]=5201 [nuncio]=8001 [socat]=8002 [haproxy]=8003)

fail() {
    echo "bench: $*" >&2
    exit 1
}

main() {
    [ "$(id -u)" = 0 ] || fail "namespaces need root: run it as root"
    [ -x "$NUNCIO" ] || fail "there is no program $NUNCIO: build it with: make build"
    work=$(mktemp -d)
    trap 'exit 130' INT TERM
    trap clean_up EXIT
    peers
    wire
    serve
    forward
    local path round
    for path in "${paths[@]}"; do wait_for "$path"; done
    for ((round = 1; round <= rounds; round++)); do
        for path in "${paths[@]}"; do measure "$path" "$round"; done
    done
    report
}

# The peers' programs, unpacked from Debian's packages: none is installed, so none starts a service.
peers() {
    root=$here/../target/bench-peers
    local made
    made=$(oci_recipe_id "$here/../examples/images/oci.sh" "$here/run.sh")
    if [ "$(cat "$root/made" 2>/dev/null)" != "$made" ]; then
        echo "== unpack socat, haproxy, iperf3 and redis"
        rm -rf "$root"
        oci_debian_root "$root" "adduser debconf init-system-helpers lsb-base procps readline-common sysvinit-utils" \
            socat haproxy iperf3 redis-server redis-tools
        mkdir -p "$root/etc/haproxy"
        mknod -m 666 "$root/dev/null" c 1 3
        mknod -m 666 "$root/dev/urandom" c 1 9
        echo "$made" >"$root/made"
    fi
    root=$(realpath "$root")
    {
        printf 'global\n  maxconn 1000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n'
        printf 'listen redis\n  bind :%s\n  server s %s:6379\n' "${redis_port[haproxy]}" "$server"
        printf 'listen iperf\n  bind :%s\n  server s %s:5201\n' "${iperf_port[haproxy]}" "$server"
    } >"$root/etc/haproxy/haproxy.cfg"
}

# wire: client -- middle -- server, with the middle routing for the direct path.
wire() {
    local name
    for name in client middle server; do
        ip netns add "$stem-$name"
        ip -n "$stem-$name" link set lo up
        # The same for all, whatever this machine prefers.
        nsenter --net="/run/netns/$stem-$name" sh -c 'echo reno >/proc/sys/net/ipv4/tcp_congestion_control'
    done
    join client 198.18.0.1 middle 198.18.0.2
    join server 198.18.1.2 middle 198.18.1.1
    nsenter --net="/run/netns/$stem-middle" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    ip -n "$stem-client" route add default via 198.18.0.2
    ip -n "$stem-server" route add default via 198.18.1.1
}

join() {
    ip -n "$stem-$1" link add eth0 type veth peer name "$1" netns "$stem-$3"
    ip -n "$stem-$1" addr add "$2/24" dev eth0
    ip -n "$stem-$3" addr add "$4/24" dev "$1"
    ip -n "$stem-$1" link set eth0 up
    ip -n "$stem-$3" link set "$1" up
}

# at NAMESPACE PROGRAM... : runs a peer's program there.
at() {
    local namespace=$1
    shift
    timeout -k 1 30 nsenter --net="/run/netns/$stem-$namespace" chroot "$root" "$@"
}

# The same in the background, until the end.
keep() {
    local namespace=$1
    shift
    nsenter --net="/run/netns/$stem-$namespace" "$@" >>"$work/log" 2>&1 &
    started+=($!)
}

serve() {
    keep server chroot "$root" redis-server --protected-mode no --save '' --dir /tmp
    keep server chroot "$root" iperf3 -s
}

forward() {
    keep middle "$NUNCIO" ambassador --listen "tcp://0.0.0.0:${redis_port[nuncio]}" --to "tcp://$server:6379"
    keep middle "$NUNCIO" ambassador --listen "tcp://0.0.0.0:${iperf_port[nuncio]}" --to "tcp://$server:5201"
    keep middle chroot "$root" socat "TCP-LISTEN:${redis_port[socat]},fork,reuseaddr" "TCP:$server:6379"
    keep middle chroot "$root" socat "TCP-LISTEN:${iperf_port[socat]},fork,reuseaddr" "TCP:$server:5201"
    keep middle chroot "$root" haproxy -db -f /etc/haproxy/haproxy.cfg
}

# target PATH : where the client connects to.
target() {
    [ "$1" = direct ] && echo "$server" || echo "$middle"
}

wait_for() {
    local deadline=$((SECONDS + 10))
    until [ "$(at client redis-cli -h "$(target "$1")" -p "${redis_port[$1]}" ping 2>/dev/null)" = PONG ]; do
        [ $SECONDS -lt $deadline ] || { tail "$work/log" >&2; fail "no redis answers by way of $1"; }
        sleep 0.1
    done
}

measure() {
    local path=$1 host requests bits
    host=$(target "$path")
    requests=$(at client redis-benchmark -h "$host" -p "${redis_port[$path]}" -c 50 -n 100000 -t get --csv |
        awk -F'"' '$2 == "GET" { print $4 }')
    bits=$(at client iperf3 -c "$host" -p "${iperf_port[$path]}" -t 3 -J |
        sed -n '/"sum_received"/,/}/s/.*"bits_per_second":[[:space:]]*\([0-9.e+]*\).*/\1/p')
    if [ -z "$requests" ] || [ -z "$bits" ]; then fail "round $2 of $path gave no figure"; fi
    echo "$requests" >>"$work/$path.redis"
    echo "$bits" >>"$work/$path.iperf"
    printf 'round %s  %-8s  %8.0f requests/s  %6.2f Gb/s\n' "$2" "$path" "$requests" "$(awk "BEGIN { print $bits / 1e9 }")"
}

median() {
    sort -g "$1" | awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int((NR + 2) / 2)]) / 2 }'
}

# ratio A B : A as a multiple of B.
ratio() {
    awk "BEGIN { printf \"%.2f\", $1 / $2 }"
}

report() {
    local path requests bits direct_requests direct_bits rows=()
    direct_requests=$(median "$work/direct.redis")
    direct_bits=$(median "$work/direct.iperf")
    printf '\nmedians of %s rounds\n%-8s  %12s  %8s  %8s  %8s\n' "$rounds" PATH "REDIS C=50/S" "x DIRECT" "GBIT/S" "x DIRECT"
    for path in "${paths[@]}"; do
        requests=$(median "$work/$path.redis")
        bits=$(median "$work/$path.iperf")
        printf '%-8s  %12.0f  %8s  %8.2f  %8s\n' "$path" "$requests" "$(ratio "$requests" "$direct_requests")" \
            "$(awk "BEGIN { print $bits / 1e9 }")" "$(ratio "$bits" "$direct_bits")"
        rows+=("$(printf '"%s":{"redis_per_second":%s,"bits_per_second":%s}' "$path" \
            "$(series "$work/$path.redis")" "$(series "$work/$path.iperf")")")
    done
    mkdir -p "$here/results"
    local out
    out=$here/results/$(date -u +%Y%m%dT%H%M%SZ).json
    (
        IFS=,
        printf '{"v":1,"revision":"%s","kernel":"%s","cores":%s,"rounds":%s,"paths":{%s}}\n' \
            "$(git -C "$here" describe --always --dirty 2>/dev/null)" "$(uname -r)" "$(nproc)" "$rounds" "${rows[*]}"
    ) >"$out"
    printf '\nwritten to %s\n' "$out"
}

# The figures of a file as a JSON array.
series() {
    printf '[%s]' "$(paste -sd, "$1")"
}

started=()
clean_up() {
    local status=$? name
    trap - EXIT
    exec 2>/dev/null # or the shell reports each process that is killed here
    # socat's children are in the namespaces too; each namespace is ours alone.
    for name in client middle server; do
        [ -e "/run/netns/$stem-$name" ] || continue
        ip netns pids "$stem-$name" | xargs -r kill -KILL || true
        ip netns del "$stem-$name"
    done
    [ ${#started[@]} -eq 0 ] || wait "${started[@]}" || true
    rm -rf "$work"
    exit $status
}

main
