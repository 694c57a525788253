#!/usr/bin/env bash
# The embedded registry beside etcd: the same disk, the same client, one server at a time.
#
#   bench/registry.sh [SECONDS]   that each measurement of puts takes, 10 unless given
#
# Both sync each write before they answer. etcd is Debian's, one member, with its defaults. Variables: LOAD, the program that
# `cargo build --release -p nuncio-registry --example registry_load` makes; DIR, a directory on the disk to be used.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

seconds=${1:-10}
[[ $seconds =~ ^[1-9][0-9]?$ ]] || fail "SECONDS is '$seconds': give a number from 1 to 99"
LOAD=$(find_program "${LOAD:-registry_load}")
ETCD=$(find_program etcd)
work=$(mktemp -d "${DIR:-${TMPDIR:-/tmp}}/nuncio-bench-registry-XXXXXX")
server=
trap 'exit 130' INT TERM
trap 'stop_server; rm -rf "$work"' EXIT

# start_server KIND : on the data it has, and returns when it answers.
start_server() {
    case $1 in
    embedded) "$LOAD" serve "$work/embedded" 127.0.0.1:23790 >"$work/log" 2>&1 & ;;
    etcd)
        "$ETCD" --data-dir "$work/etcd" --listen-client-urls http://127.0.0.1:23790 \
            --advertise-client-urls http://127.0.0.1:23790 --listen-peer-urls http://127.0.0.1:23791 \
            --logger zap --log-level error >"$work/log" 2>&1 &
        ;;
    esac
    server=$!
    until "$LOAD" fill http://127.0.0.1:23790 1 2>/dev/null; do
        kill -0 "$server" 2>/dev/null || fail "$1 does not start: $(cat "$work/log")"
        sleep 0.1
    done
}

stop_server() {
    [ -n "$server" ] || return 0
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

memory() {
    awk '/^(VmHWM|VmRSS|RssAnon)/ { printf "%s %.0f MiB  ", $1, $2 / 1024 } END { print "" }' "/proc/$server/status"
}

for kind in embedded etcd; do
    echo "== $kind"
    url=http://127.0.0.1:23790
    start_server "$kind"
    "$LOAD" puts "$url" 1 "$seconds"
    "$LOAD" puts "$url" 64 "$seconds"
    "$LOAD" fanout "$url" 1000 200
    "$LOAD" seen "$url" 50 100
    stop_server

    start_server "$kind"
    "$LOAD" fill "$url" 100000
    echo "memory with 100,000 keys: $(memory)"
    stop_server

    start_server "$kind"
    echo "memory when it has opened them: $(memory)"
    stop_server

    # Its connections are lost at once, and it is back two seconds later, when clients have begun to wait longer.
    rm -rf "$work/$kind"
    start_server "$kind"
    mkfifo "$work/go"
    "$LOAD" storm "$url" 1000 <"$work/go" >"$work/storm" &
    storm=$!
    exec 3>"$work/go"
    until grep -q connected "$work/storm"; do sleep 0.1; done
    stop_server
    until grep -q lost "$work/storm"; do sleep 0.1; done
    sleep 2
    start_server "$kind"
    echo >&3
    exec 3>&-
    wait "$storm"
    tail -n 1 "$work/storm"
    rm "$work/go"
    stop_server
done
