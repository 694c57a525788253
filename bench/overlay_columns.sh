# How each column of the networks is measured. Sourced by overlay.sh.
# shellcheck shell=bash
#
# measure_COLUMN PATH writes its figures with `sample`.

columns=(bulk1 bulk8 redis50 connect attach network repair)

# does PATH COLUMN : is that measured there?
does() {
    case $1:$2 in
        overlay:*) ;;
        openssl*:bulk1) ;;
        openssl*:*) return 1 ;;
        docker:attach | bridge:attach) ;;
        *:attach | *:network | *:repair) return 1 ;;
    esac
}

# sample FIGURE VALUE : for the path and round at hand.
sample() {
    [[ $2 =~ ^[0-9.]+(e[+-]?[0-9]+)?$ ]] || fail "round $round, $path: $1 gave no figure but '$2'"
    printf '%s\t%s\t%s\t%s\n' "$round" "$path" "$1" "$2" >>"$work/samples"
}

# client PATH PROGRAM... : at the path's client.
client() {
    local net=${client_net[$1]}
    shift
    nsenter --net="$net" timeout -k 1 60 "$@"
}

measure_bulk1() { bulk "$1" bulk1 1; }
measure_bulk8() { bulk "$1" bulk8 8; }

# bulk PATH FIGURE STREAMS : what all streams together have received.
bulk() {
    case $1 in
        openssl) sample "$2" "$(openssl_speed)" && return ;;
        openssl2) sample "$2" "$(sealed_and_opened)" && return ;;
    esac
    client "$1" chroot "$root" iperf3 -c "${server_address[$1]}" -P "$3" -t "$duration" -J >"$work/iperf" ||
        fail "iperf3 by way of $1: $(sed -n 's/.*"error"://p' "$work/iperf")"
    sample "$2" "$(sed -n '/"sum_received"/,/}/s/.*"bits_per_second":[[:space:]]*\([0-9.e+]*\).*/\1/p' "$work/iperf")"
}

# openssl_speed FLAG... : bits a second that openssl seals in pieces of 1,400 bytes, as WireGuard has them.
openssl_speed() {
    openssl speed -evp chacha20-poly1305 -bytes 1400 -seconds "$duration" "$@" 2>/dev/null |
        awk '/^ChaCha20-Poly1305/ { sub("k", "", $2); printf "%.0f", $2 * 8000 }'
}

# While one core seals and another one opens, what the slower of them does.
sealed_and_opened() {
    openssl_speed -elapsed >"$work/sealed" &
    openssl_speed -elapsed -decrypt >"$work/opened"
    wait $!
    printf '%s\n' "$(cat "$work/sealed")" "$(cat "$work/opened")" | sort -n | head -n 1
}

measure_redis50() {
    local line
    line=$(client "$1" chroot "$root" redis-benchmark -h "${server_address[$1]}" -n $((35000 * duration)) -t get --csv -c 50 |
        tr -d '"' | grep ^GET,) || fail "redis-benchmark by way of $1"
    sample redis50.ops "$(cut -d, -f2 <<<"$line")"
    sample redis50.p50 "$(cut -d, -f5 <<<"$line")"
    sample redis50.p99 "$(cut -d, -f7 <<<"$line")"
}

measure_connect() {
    sample connect "$(client "$1" "$LOAD" connect "${server_address[$1]}:5301" --seconds "$duration")"
}

# From `network connect` of a running container to its first answer from one that was there before.
measure_attach() {
    local host start
    host=$(attached_host "$1")
    case $1 in
        overlay) ;;
        *)
            engine "$host" network create joined >/dev/null
            engine "$host" network connect joined server
            ;;
    esac
    local network=joined target server=server
    [ "$1" != overlay ] || { network=mesh && server=overlay-server; }
    stand "$host" late
    target=$(address_of "$(server_host "$1")" "$server" "$network")
    start=$(milliseconds)
    engine "$host" network connect "$network" late
    answers "$host" late "$target"
    sample attach "$(since "$start")"
    engine "$host" rm -f late >/dev/null
    case $1 in
        overlay) ;;
        *)
            engine "$host" network disconnect joined server
            engine "$host" network rm joined >/dev/null
            ;;
    esac
}

# From `network create` on one host to the first packet from a container there to one on another host: the command, both
# containers' joining, and what the hosts tell each other.
measure_network() {
    local start near far target
    stand nuncio-a early
    stand nuncio-b late
    near=$(net_of nuncio-a early)
    far=$(net_of nuncio-b late)
    start=$(milliseconds)
    engine nuncio-a network create -d overlay fresh >/dev/null
    engine nuncio-a network connect fresh early
    until engine nuncio-b network connect fresh late 2>>"$work/log-nuncio-b"; do
        [ "$(since "$start" | cut -d. -f1)" -lt 10000 ] || fail "the network is not known to the other host"
    done
    # Not by the client: to ask it takes longer than the rest.
    target=$(nsenter --net="$far" ip -4 -br addr show | awk '!/^(lo|eth0)/ { sub("/.*", "", $3); print $3 }')
    answers_in "$near" "$target"
    sample network "$(since "$start")"
    engine nuncio-a rm -f early >/dev/null
    engine nuncio-b rm -f late >/dev/null
    engine nuncio-a network rm fresh >/dev/null
}

# From the removal by hand of what the network needs on one host until it is back.
measure_repair() {
    local net=$stem-nuncio-a device block mac
    device=$(ip -n "$net" -br link show type vxlan | awk '{ sub("@.*", "", $1); print $1; exit }')
    block=$(ip -n "$net" route show dev "$device" | awk '{ print $1; exit }')
    mac=$(bridge -n "$net" fdb show dev "$device" | awk '/ dst / { print $1; exit }')
    repair route "ip route del $block" "ip route show $block | grep -q ."
    repair neighbour "ip neigh flush dev $device nud permanent" "ip neigh show dev $device nud permanent | grep -q ."
    repair fdb "bridge fdb del $mac dev $device" "bridge fdb show dev $device | grep -q ' dst '"
    repair link "ip link del $device" "ip route show dev $device 2>/dev/null | grep -q . && bridge fdb show dev $device | grep -q ' dst '"
    repair rules "nft delete table inet nuncio" "nft list table inet nuncio >/dev/null 2>&1"
}

# repair KIND DAMAGE CHECK
repair() {
    sample "repair.$1" "$(nsenter --net="/run/netns/$stem-nuncio-a" timeout 20 bash -c "
        $2
        start=\${EPOCHREALTIME/./}
        until $3; do :; done
        echo \$(((\${EPOCHREALTIME/./} - start) / 1000))")"
}

attached_host() {
    case $1 in
        overlay) echo nuncio-a ;;
        docker) echo docker ;;
        bridge) echo nuncio ;;
    esac
}

server_host() {
    case $1 in
        overlay) echo nuncio-b ;;
        *) attached_host "$1" ;;
    esac
}

# answers HOST CONTAINER ADDRESS : pings until an answer comes.
answers() {
    answers_in "$(net_of "$1" "$2")" "$3"
}

# answers_in NAMESPACE ADDRESS
answers_in() {
    until_true 10 nsenter --net="$1" "$root/../bench-engines/usr/bin/busybox" ping -c 1 -W 1 "$2" ||
        fail "$2 does not answer"
}

milliseconds() {
    echo $((${EPOCHREALTIME/./} / 1000))
}

# since START : milliseconds.
since() {
    awk "BEGIN { printf \"%.1f\", ${EPOCHREALTIME/./} / 1000 - $1 }"
}
