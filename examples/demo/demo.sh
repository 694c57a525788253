#!/usr/bin/env bash
# Redis across two hosts, three ways. See README.md; `make demo` calls this.
#
#   NUNCIO  the program (default: the one on PATH)
#   IMAGE   an image to fetch instead of making one, such as redis:7
#   KEEP=1  leave everything up at the end
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"

NUNCIO=${NUNCIO:-nuncio}
command -v "$NUNCIO" >/dev/null || fail "there is no program $NUNCIO: build it with: make build"
NUNCIO=$(realpath "$(command -v "$NUNCIO")")
IMAGE=${IMAGE:-redis}
TABLE=()
# What took long does not count: the clock runs from here.
SECONDS=0

main() {
    need_root
    exec 9<"$here"
    flock -n 9 || fail "another demo is running; let it end first"
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    trap finish EXIT
    take_down

    image_archive
    "$NUNCIO" doctor >"$archive.doctor" 2>&1 || { cat "$archive.doctor" >&2; fail "this machine lacks what the list above says"; }
    rm -f "$archive.doctor"

    say "Two hosts, joined by a bridge that leads nowhere else"
    make_underlay
    start_daemon a --registry embedded
    start_daemon b --registry "http://${ADDRESS[a]}:2379"
    on a load -i "$archive"
    on b load -i "$archive"

    classic_chain
    link_across_hosts
    overlay_network
    summary
    [ "${KEEP:-}" = 1 ] || clean_up
}

# Puts the path of the image's archive in $archive.
image_archive() {
    local images=$here/../../target/images
    mkdir -p "$images"
    images=$(cd "$images" && pwd)
    if [ "$IMAGE" = redis ]; then
        archive=$images/redis.oci.tar
        say "The redis image, made of Debian's packages"
        "$here/../redis/build.sh" "$archive"
    else
        # The two hosts have no way out, so this machine fetches it for them.
        archive=$images/$(printf %s "$IMAGE" | tr -c 'A-Za-z0-9._-' _).oci.tar
        say "The image $IMAGE, from its registry"
        command -v skopeo >/dev/null || "$here/../../packaging/deps.sh" pull
        [ -s "$archive" ] || skopeo copy --quiet "docker://$IMAGE" "oci-archive:$archive:$IMAGE" ||
            { rm -f "$archive"; fail "cannot fetch $IMAGE; without IMAGE= the demo makes its own image"; }
    fi
}

classic_chain() {
    say "1. Docker's classic ambassador chain: client -> ambassador on B -> ambassador on A -> redis"
    on a run -d --name redis-server "$IMAGE"
    server_answers redis-server
    on a run -d --link redis-server:redis --name redis_ambassador -p 6379:6379 nuncio/ambassador
    on b run -d --name redis_ambassador --expose 6379 -e "REDIS_PORT_6379_TCP=tcp://${ADDRESS[a]}:6379" nuncio/ambassador
    prove "ambassador chain" redis-server redis --link redis_ambassador:redis
}

link_across_hosts() {
    say "2. A link across hosts: redis-server runs on A, and B finds it by its name"
    prove "link across hosts" redis-server redis --link redis-server:redis
}

overlay_network() {
    say "3. An overlay network: the two containers share a segment, and names are looked up in DNS"
    on a network create -d overlay mesh
    on a run -d --network mesh --name db "$IMAGE"
    server_answers db
    prove "overlay network" db db --network mesh
}

# server_answers CONTAINER : waits until the redis in a container on host A has loaded its data.
server_answers() {
    wait_until 10 "redis answers inside $1" quietly a exec "$1" redis-cli ping
}

# prove WAY CONTAINER NAME FLAG... : shows that a client on host B that is run with FLAGs reaches, at NAME, the redis in
# CONTAINER on host A and no other, and measures it.
prove() {
    local way=$1 container=$2 name=$3 key value run_id rate
    shift 3
    local client=(run -i --rm "$@" "$IMAGE")
    key="greeting from host-b"
    value="$way $RANDOM$RANDOM"

    on b "${client[@]}" redis-cli -h "$name" ping
    [ "$answer" = PONG ] || fail "$way: expected PONG, got '$answer'"

    on b "${client[@]}" redis-cli -h "$name" set "$key" "$value"
    on a exec "$container" redis-cli get "$key"
    [ "$answer" = "$value" ] || fail "$way: host-b has set '$value', but host-a reads '$answer': another server answered"

    on b "${client[@]}" sh -c "redis-cli -h $name info server | grep run_id"
    run_id=$answer
    on a exec "$container" sh -c "redis-cli info server | grep run_id"
    [ "$answer" = "$run_id" ] || fail "$way: '$run_id' answered host-b, but $container on host-a is '$answer'"
    run_id=$(printf %s "${run_id#run_id:}" | tr -d '\r')

    on b "${client[@]}" redis-benchmark -h "$name" -c 50 -n 20000 -t get --csv
    rate=$(printf '%s\n' "$answer" | awk -F'"' '$2 == "GET" { printf "%d", $4 }')
    [ -n "$rate" ] || fail "$way: redis-benchmark gave no figure: $answer"
    TABLE+=("$(printf '%-18s  %-24s  %-14s  %12s' "$way" "$container on host-a" "${run_id:0:12}" "$rate")")
}

summary() {
    say "All three ways lead to the right server"
    printf '%-18s  %-24s  %-14s  %12s\n' WAY "ANSWERED BY" "RUN_ID" "ROUND TRIPS/S"
    printf '%s\n' "${TABLE[@]}"
    printf '\n(redis-benchmark on host-b, 50 clients at once; %s seconds in all)\n' "$SECONDS"
}

clean_up() {
    say "And away again"
    on b rm -f redis_ambassador
    on a rm -f redis_ambassador redis-server db
    on a network rm mesh
}

finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [ "${KEEP:-}" = 1 ] && [ -S "$RUN/a/nuncio.sock" ]; then
        look_around
    else
        take_down
        [ $status -ne 0 ] || printf '\n%s\n' "Daemons, hosts and underlay are gone too."
    fi
    exit $status
}

look_around() {
    local host
    say "It is left up. Look around:"
    for host in "${HOSTS[@]}"; do
        printf '  on host-%s:  %s -H %s ps\n' "$host" "$NUNCIO" "$(socket "$host")"
        printf '              nsenter --net=/run/netns/nuncio-demo-%s ip -br address\n' "$host"
        printf '              less %s/%s/daemon.log\n' "$RUN" "$host"
    done
    printf '  A docker client works as well: DOCKER_HOST=%s docker ps\n' "$(socket a)"
    printf '  Take it down: make demo-down\n'
}

main
