#!/usr/bin/env bash
# Whether updates of services lose a request, and how long it takes until the tasks of a dead host run elsewhere.
#
#   bench/updates.sh [UPDATES] [KILLS]   100 updates and 5 kills unless given
#
# Three hosts, each with namespaces of its own, run bench/updates.yml: an HTTP server and a redis behind services, two tasks
# each. On every host clients ask on and on, 5 ms after each answer: the host by its published ports, and a container by the
# services' names. Updates are start-first and stop-first in turn. Then all processes of a host are killed at once, daemon,
# shims and containers. It fails if a request of the updates fails. Needs root. Variables: NUNCIO and LOAD, the programs; KEEP, a
# directory where the daemons' logs are left.
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
hosts=(nuncio-a nuncio-b nuncio-c)
services=(bench_web bench_cache)
declare -A holders=() first=()
loads=()
staying=''

main() {
    updates=${1:-100}
    kills=${2:-5}
    for number in "$updates" "$kills"; do
        [[ $number =~ ^[0-9]{1,4}$ ]] || fail "'$number': give a number of updates, and one of kills, up to 9999"
    done
    prepare
    "$here/../examples/redis/build.sh" "$here/../target/images/redis.oci.tar"
    cp "$LOAD" "$work/load"
    cp "$here/updates.yml" "$here/../target/images/redis.oci.tar" "$work"
    make_mesh
    engine nuncio-a stack deploy --detach=true -c /bench/updates.yml bench >/dev/null
    until_true 120 all_run || fail "the stack does not run: $(engine nuncio-a service ps "${services[@]}")"
    [ "$updates" = 0 ] || update_under_load
    [ "$kills" = 0 ] || kill_hosts
}

make_mesh() {
    local host place=1
    namespace switch
    ip -n "$stem-switch" link add bridge type bridge
    ip -n "$stem-switch" link set bridge up
    for host in "${hosts[@]}"; do
        make_host "$host"
        join "$host" eth0 "198.18.2.$place/24" switch "port$place" -
        ip -n "$stem-switch" link set "port$place" master bridge
        begin "$host" || fail "the daemon of $host does not come up: $(tail -n 5 "$work/log-$host")"
        engine "$host" load --input /bench/busybox.tar >/dev/null
        engine "$host" load --input /bench/redis.oci.tar >/dev/null
        place=$((place + 1))
    done
}

# begin HOST : its daemon.
begin() {
    case $1 in
        nuncio-a) start_daemon "$1" --advertise-addr 198.18.2.1 --node-name "$1" ;;
        nuncio-b) start_daemon "$1" --advertise-addr 198.18.2.2 --node-name "$1" --registry http://198.18.2.1:2379 ;;
        nuncio-c) start_daemon "$1" --advertise-addr 198.18.2.3 --node-name "$1" --registry http://198.18.2.1:2379 ;;
    esac
}

# All tasks of both services run, on hosts that live.
all_run() {
    [ "$(engine nuncio-a service ls --format '{{.Name}} {{.Replicas}}' | sort)" = $'bench_cache 2/2\nbench_web 2/2' ]
}

update_under_load() {
    local number order service start times=$work/update-times
    : >"$times"
    begin_loads
    for ((number = 0; number < updates; number++)); do
        order=$((number % 2))
        order=$([ $order = 0 ] && echo start-first || echo stop-first)
        service=${services[number / 2 % 2]}
        start=$(milliseconds)
        engine nuncio-a service update -q --update-order "$order" --env-add "N=$number" "$service" >>"$work/log-updates" 2>&1 ||
            fail "update $number of $service: $(tail -n 3 "$work/log-updates")"
        echo "$order $(since "$start")" >>"$times"
        printf 'update %s of %s, %s of %s, after %s s\n' $((number + 1)) "$updates" "$order" "$service" "$SECONDS"
        if [ -s "$work/failures" ]; then break; fi
    done
    end_loads
}

# Clients of the host and of a container, on each host.
begin_loads() {
    local host
    mkfifo "$work/over"
    for host in "${hosts[@]}"; do
        on "$host" /bench/load steady --clients 1 --http 127.0.0.1:8080 --redis 127.0.0.1:6379 \
            <"$work/over" >"$work/asked-$host" 2>>"$work/failures" &
        loads+=($!)
        engine "$host" run -i --rm --name load --network mesh -v /bench:/bench busybox \
            /bench/load steady --clients 1 --http web:80 --redis cache:6379 \
            <"$work/over" >"$work/asked-in-$host" 2>>"$work/failures" &
        loads+=($!)
    done
    # Not the script itself, of which whoever it starts would inherit that end.
    sleep 864000 >"$work/over" &
    staying=$!
    disown
}

end_loads() {
    local load
    kill "$staying"
    staying=''
    for load in "${loads[@]}"; do wait "$load"; done
    loads=()
    echo "== updates: $(wc -l <"$work/update-times"); requests answered, failed, and the longest in ms: $(asked)"
    for load in start-first stop-first; do
        echo "== an update of two tasks, $load, in the median: $(awk -v o=$load '$1 == o { print $2 }' "$work/update-times" | median) ms"
    done
    if [ -s "$work/failures" ]; then
        cat "$work/failures" >&2
        fail "requests failed"
    fi
}

# Of all clients together.
asked() {
    cat "$work"/asked-* | awk '{ a += $1; f += $2; if ($3 > m) m = $3 } END { print a, f, m }'
}

kill_hosts() {
    local number host start
    : >"$work/kill-times"
    for ((number = 1; number <= kills; number++)); do
        host=$([ $((number % 2)) = 0 ] && echo nuncio-b || echo nuncio-c)
        until_true 60 has_tasks "$host" || fail "nothing runs on $host"
        start=$(milliseconds)
        kill_host "$host"
        until_true 60 is_down "$host" || fail "that $host is dead is not noticed"
        down=$(since "$start")
        until_true 60 all_run || fail "its tasks do not run elsewhere: $(engine nuncio-a service ps "${services[@]}")"
        echo "$down $(since "$start")" | tee -a "$work/kill-times"
        revive "$host"
    done
    echo "== a host that dies is found dead after $(awk '{ print $1 }' "$work/kill-times" | median) ms in the median, and its tasks run" \
        "elsewhere after $(awk '{ print $2 }' "$work/kill-times" | median) ms; the longest: $(sort -n "$work/kill-times" | tail -n 1)"
}

# has_tasks HOST
has_tasks() {
    [ -n "$(engine nuncio-a node ps --filter desired-state=running -q "$1")" ]
}

# is_down HOST
is_down() {
    [ "$(engine nuncio-a node inspect --format '{{.Status.State}}' "$1")" = down ]
}

# kill_host HOST : all of its processes at once, as they are in a namespace whose first process is killed.
kill_host() {
    kill -KILL "${holders[$1]}"
    wait "${holders[$1]}" 2>/dev/null || true
    until_true 10 no_process_of "$1" || fail "processes of $1 do not end"
}

# revive HOST : it is switched on again.
revive() {
    rm "$work/$1.ready"
    hold "$1"
    begin "$1" || fail "$1 does not come back: $(tail -n 5 "$work/log-$1")"
    ! is_down "$1" || until_true 30 is_up "$1" || fail "$1 does not come back"
}

# is_up HOST
is_up() {
    ! is_down "$1"
}

clean_up() {
    local status=$?
    trap - EXIT
    [ $status = 0 ] || [ -z "${work-}" ] || tail -qn 12 "$work"/log-* 2>/dev/null >&2 || true
    [ -z "$staying" ] || kill "$staying" 2>/dev/null || true
    [ -z "${KEEP-}" ] || { mkdir -p "$KEEP"; cp "$work"/log-* "$work"/failures "$KEEP" 2>/dev/null; }
    remove_hosts
    remove_plain_hosts
    remove_disk
    exit $status
}

main "$@"
