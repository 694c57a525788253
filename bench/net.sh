# Three namespaces, their addresses and ports, and who runs where. Sourced by run.sh.
# shellcheck shell=bash

stem=nuncio-bench-$$
server=198.18.1.2
middle=198.18.0.2

# What the server offers: redis, iperf3, and what `nuncio-bench serve` listens on.
declare -A server_port=([redis]=6379 [iperf]=5201 [brief]=5301 [hold]=5302 [udp]=5303 [control]=5304)
tcp_services=(redis iperf brief hold)
declare -A first_port=([redis]=7000 [iperf]=7100 [brief]=7200 [hold]=7300 [udp]=7400)
declare -A place=([nat]=1 [nuncio]=2 [haproxy]=3 [haproxy-splice]=4 [nginx]=5 [docker-proxy]=6 [socat]=7 [rewrite]=8)

# port SERVICE PATH : where the path's forwarder listens for it.
port() {
    [ "$2" = direct ] && echo "${server_port[$1]}" || echo $((first_port[$1] + place[$2]))
}

protocol() {
    [ "$1" = udp ] && echo udp || echo tcp
}

# host PATH : where the client connects to.
host() {
    [ "$1" = direct ] && echo "$server" || echo "$middle"
}

# wire: client -- middle -- server, with the middle routing for the direct path.
wire() {
    local name
    for name in client middle server; do
        ip netns add "$stem-$name"
        ip -n "$stem-$name" link set lo up
        # The same for all, whatever this machine prefers; and ports for all the short connections.
        nsenter --net="/run/netns/$stem-$name" sh -ec '
            echo reno >/proc/sys/net/ipv4/tcp_congestion_control
            echo 10000 65000 >/proc/sys/net/ipv4/ip_local_port_range
            echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse'
    done
    join client 198.18.0.1 middle $middle
    join server $server middle 198.18.1.1
    nsenter --net="/run/netns/$stem-middle" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    ip -n "$stem-client" route add default via $middle
    ip -n "$stem-server" route add default via 198.18.1.1
}

join() {
    ip -n "$stem-$1" link add eth0 type veth peer name "$1" netns "$stem-$3"
    ip -n "$stem-$1" addr add "$2/24" dev eth0
    ip -n "$stem-$3" addr add "$4/24" dev "$1"
    ip -n "$stem-$1" link set eth0 up
    ip -n "$stem-$3" link set "$1" up
}

# A cgroup for each path, which tells what its processes use; v2, which accounts CPU without any controller.
make_cgroups() {
    local mount path
    mount=$(awk '/ - cgroup2 / { print $5; exit }' /proc/self/mountinfo)
    [ -n "$mount" ] || fail "no cgroup2 is mounted, by which CPU time is counted"
    cgroup=$mount/$stem
    mkdir "$cgroup" "$cgroup/client" "$cgroup/client/rewritten"
    for path in "${paths[@]}"; do mkdir "$cgroup/$path"; done
}

# within CGROUP NAMESPACE PROGRAM... : becomes the program, there.
within() {
    local group=$1 namespace=$2
    shift 2
    # shellcheck disable=SC2016 # expanded by the inner shell
    exec sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec nsenter "$@"' sh "$group" --net="/run/netns/$stem-$namespace" "$@"
}

# client PROGRAM... : runs it at the client's end; for the path `rewrite`, where connects are rewritten.
client() {
    local group=$cgroup/client
    [ "$path" != rewrite ] || group=$group/rewritten
    (within "$group" client timeout -k 1 30 "$@")
}

# forward PATH PROGRAM... : runs it in the middle, in the background.
forward() {
    local path=$1
    shift
    (within "$cgroup/$path" middle "$@") >>"$work/log" 2>&1 &
    disown # or the shell reports its end
}

# serve PROGRAM... : runs it at the server's end, in the background.
serve() {
    nsenter --net="/run/netns/$stem-server" "$@" >>"$work/log" 2>&1 &
    disown
}

# stop PATH : ends the path's forwarder, with all its processes.
stop() {
    local path=$1 deadline=$((SECONDS + 10))
    while [ -n "$(cat "$cgroup/$path/cgroup.procs")" ]; do
        [ $SECONDS -lt $deadline ] || fail "processes of $path do not end"
        xargs -r kill -KILL <"$cgroup/$path/cgroup.procs" 2>/dev/null || true
        sleep 0.02
    done
}

# is_up PATH : does all listen that must?
is_up() {
    local namespace=middle service tcp udp
    [ "$1" = nat ] && return
    [ "$1" = direct ] && namespace=server
    tcp=$(nsenter --net="/run/netns/$stem-$namespace" ss -Hltn)
    udp=$(nsenter --net="/run/netns/$stem-$namespace" ss -Hlun)
    for service in "${tcp_services[@]}"; do
        grep -q ":$(port "$service" "$1") " <<<"$tcp" || return 1
    done
    ! does "$1" udp || grep -q ":$(port udp "$1") " <<<"$udp"
}

wait_for() {
    comes_up "$1" || { tail -n 40 "$work/log" >&2; fail "$1 does not listen"; }
}

comes_up() {
    local deadline=$((SECONDS + 10))
    until is_up "$1"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.05
    done
}

# restart PATH : a fresh forwarder in place of the old one. docker-proxy, of which a process serves each port, now and then
# finds one of them still taken: then all begin again.
restart() {
    local try
    for try in 1 2 3; do
        stop "$1"
        start "$1"
        ! comes_up "$1" || return 0
        echo "== $1 does not come up, try $try"
    done
    wait_for "$1"
}

# The rules of published ports, as nuncio makes them. They are there only while they are measured, for connection
# tracking, once a rule needs it, sees the packets of all paths.
nat_on() {
    local service
    {
        printf 'table inet nuncio {\n'
        printf ' chain forward {\n  type filter hook forward priority 0;\n'
        printf '  ct state established,related accept\n'
        printf '  oifname "server" ct status dnat accept\n }\n'
        printf ' chain published {\n'
        for service in "${tcp_services[@]}" udp; do
            printf '  %s dport %s dnat ip to %s:%s\n' "$(protocol "$service")" "$(port "$service" nat)" \
                "$server" "$(port "$service" direct)"
        done
        printf ' }\n chain prerouting {\n  type nat hook prerouting priority -100;\n'
        printf '  fib daddr type local jump published\n }\n'
        printf ' chain postrouting {\n  type nat hook postrouting priority 100;\n'
        printf '  oifname "server" ip saddr 198.18.1.0/24 ct status dnat masquerade\n }\n}\n'
    } | nsenter --net="/run/netns/$stem-middle" nft -f -
}

nat_off() {
    nsenter --net="/run/netns/$stem-middle" nft delete table inet nuncio
}
