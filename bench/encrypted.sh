#!/usr/bin/env bash
# What an encrypted overlay carries between two hosts, beside a plain one, and beside what openssl seals on one core.
#
#   bench/encrypted.sh [SECONDS]   10 for each measurement, unless given
#
# The hosts are network namespaces on this machine, joined by one veth pair: both ends of every packet share its cores.
# Needs root, and a machine that does nothing else. NUNCIO is the program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

stem=nuncio-sealed-$$
seconds=${1:-10}
archive=$here/../target/images/busybox.oci.tar
work=$(mktemp -d /tmp/nb-XXXXXX)
daemons=()

clean_up() {
    local name process
    for name in a b; do
        on "$name" rm -f "box-$name" >/dev/null 2>&1 || true
    done
    for process in "${daemons[@]}"; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    for name in a b; do ip netns del "$stem-$name" 2>/dev/null || true; done
    rm -rf "$work"
}

# on HOST COMMAND... : a command of the host's daemon.
on() {
    local name=$1
    shift
    "$NUNCIO" -H "unix://$work/$name/n.sock" "$@"
}

# start HOST ADDRESS REGISTRY
start() {
    mkdir "$work/$1"
    ip netns exec "$stem-$1" "$NUNCIO" daemon --data-root "$work/$1/d" --exec-root "$work/$1/x" -H "unix://$work/$1/n.sock" \
        --advertise-addr "$2" --node-name "$1" --registry "$3" >"$work/$1.log" 2>&1 &
    daemons+=($!)
    for _ in $(seq 300); do
        on "$1" version >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "the daemon on $1 does not answer: $(tail -3 "$work/$1.log")"
}

# inside HOST COMMAND... : in the network namespace of its container.
inside() {
    local process
    process=$(on "$1" inspect -f '{{.State.Pid}}' "box-$1")
    shift
    nsenter --net="/proc/$process/ns/net" "$@"
}

# rate NETWORK STREAMS : Gb/s from a's container to b's.
rate() {
    local address
    address=$(on b inspect -f "{{.NetworkSettings.Networks.$1.IPAddress}}" box-b)
    inside b iperf3 -s -1 -D -B "$address" >/dev/null
    for _ in $(seq 50); do
        inside b ss -ltn | grep -q 5201 && break
        sleep 0.1
    done
    inside a iperf3 -c "$address" -P "$2" -t "$seconds" -O 1 -J |
        sed -n '/"sum_received"/,/}/s/.*"bits_per_second":[^0-9]*\([0-9.e+]*\).*/\1/p' |
        awk '{ printf "%.2f\n", $1 / 1e9 }'
}

main() {
    [ "$(id -u)" = 0 ] || fail "namespaces need root: run it as root"
    NUNCIO=$(find_program "${NUNCIO:-nuncio}")
    trap 'exit 130' INT TERM
    trap clean_up EXIT
    "$here/../tests/support/busybox.sh"
    ip netns add "$stem-a"
    ip netns add "$stem-b"
    ip -n "$stem-a" link add eth0 type veth peer name eth0 netns "$stem-b"
    ip -n "$stem-a" addr add 198.18.0.1/24 dev eth0
    ip -n "$stem-b" addr add 198.18.0.2/24 dev eth0
    for name in a b; do
        ip -n "$stem-$name" link set lo up
        ip -n "$stem-$name" link set eth0 up
    done
    start a 198.18.0.1 embedded
    start b 198.18.0.2 http://198.18.0.1:2379
    on a network create -d overlay plain >/dev/null
    on a network create -d overlay --opt encrypted sealed >/dev/null
    for name in a b; do
        on "$name" load -i "$archive" >/dev/null
        on "$name" run -d --name "box-$name" --network plain busybox sleep 100000 >/dev/null
        on "$name" network connect sealed "box-$name"
    done
    local sealed plain streams openssl
    openssl=$(openssl speed -evp chacha20-poly1305 -bytes 1400 -seconds 3 2>/dev/null |
        awk '/^ChaCha20-Poly1305/ { sub("k", "", $2); printf "%.2f\n", $2 * 8 / 1e6 }')
    echo "openssl, one core, 1400 bytes: $openssl Gb/s"
    for streams in 1 8; do
        plain=$(rate plain "$streams")
        sealed=$(rate sealed "$streams")
        awk -v streams="$streams" -v plain="$plain" -v sealed="$sealed" -v openssl="$openssl" 'BEGIN {
            printf "streams %d: plain %s Gb/s, encrypted %s Gb/s: %.2f of plain, %.2f of openssl\n",
                streams, plain, sealed, sealed / plain, sealed / openssl }'
    done
}

main "$@"
