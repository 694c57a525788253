# The networks that are measured: two namespaces each, of which one has the server. Sourced by overlay.sh.
# shellcheck shell=bash
#
# make_PATH leaves the files of both namespaces in client_net and server_net, and the server's address in server_address.

declare -A client_net=() server_net=() server_address=()
servers=()
# Flags that all of nuncio's daemons get.
daemon_flags=()
plain=()

# peer_host PATH : the host whose log tells why it does not come up.
peer_host() {
    case $1 in
        overlay | sealed) echo nuncio-b ;;
        around) echo nuncio-d ;;
        bridge) echo nuncio ;;
        *) echo "$1" ;;
    esac
}

# namespace NAME : one that is no host's.
namespace() {
    ip netns add "$stem-$1"
    plain+=("$stem-$1")
    ip -n "$stem-$1" link set lo up
}

# join ONE DEVICE ADDRESS OTHER DEVICE ADDRESS : a veth between two namespaces. An end without an address has '-'.
join() {
    ip -n "$stem-$1" link add "$2" type veth peer name "$5" netns "$stem-$4"
    set_up "$1" "$2" "$3"
    set_up "$4" "$5" "$6"
}

# set_up NAMESPACE DEVICE ADDRESS
set_up() {
    [ "$3" = - ] || ip -n "$stem-$1" addr add "$3" dev "$2"
    ip -n "$stem-$1" link set "$2" up
}

# The underlay alone, of the two hosts that have the VXLAN as well.
make_veth() {
    make_plain_hosts
    client_net[veth]=/run/netns/$stem-a
    server_net[veth]=/run/netns/$stem-b
    server_address[veth]=198.18.2.2
}

make_plain_hosts() {
    [ ! -e "/run/netns/$stem-a" ] || return 0
    namespace a
    namespace b
    join a eth0 198.18.2.1/24 b eth0 198.18.2.2/24
}

# As one makes it by hand: a bridge and a VXLAN device that learns on each host, no agent.
make_vxlan() {
    local host place=1
    make_plain_hosts
    for host in a b; do
        namespace "in-$host"
        ip -n "$stem-$host" link add br0 type bridge
        ip -n "$stem-$host" link add vxlan0 type vxlan id 77 dstport 4789 local 198.18.2.$place remote 198.18.2.$((3 - place))
        ip -n "$stem-$host" link set vxlan0 master br0
        join "in-$host" eth0 198.18.3.$place/24 "$host" port0 -
        ip -n "$stem-in-$host" link set eth0 mtu 1450
        ip -n "$stem-$host" link set port0 mtu 1450
        ip -n "$stem-$host" link set port0 master br0
        ip -n "$stem-$host" link set vxlan0 up
        ip -n "$stem-$host" link set br0 up
        place=$((place + 1))
    done
    client_net[vxlan]=/run/netns/$stem-in-a
    server_net[vxlan]=/run/netns/$stem-in-b
    server_address[vxlan]=198.18.3.2
}

make_overlay() {
    make_nuncio_hosts && across nuncio-a nuncio-b overlay mesh
}

make_sealed() {
    make_nuncio_hosts && across nuncio-a nuncio-b sealed hidden --opt encrypted
}

# Two hosts between which no VXLAN gets through, so that all goes by TLS.
make_around() {
    make_nuncio_pair nuncio-c nuncio-d 198.18.4 || return 1
    local host
    for host in nuncio-c nuncio-d; do
        nsenter --net="/run/netns/$stem-$host" nft -f - <<<'table inet blocked {
            chain input { type filter hook input priority -500; udp dport 4789 drop; }
        }'
    done
    across nuncio-c nuncio-d around mesh || return 1
    until_true 60 nsenter --net="${client_net[around]}" "$engines/usr/bin/busybox" ping -c 1 -W 1 "${server_address[around]}"
}

make_nuncio_hosts() {
    make_nuncio_pair nuncio-a nuncio-b 198.18.2
}

# make_nuncio_pair HOST HOST SUBNET : two daemons; the first has the registry. Once.
make_nuncio_pair() {
    [ -z "${first[$2]-}" ] || return 0
    make_host "$1"
    make_host "$2"
    join "$1" eth0 "$3.1/24" "$2" eth0 "$3.2/24"
    start_daemon "$1" --advertise-addr "$3.1" --node-name "${1#nuncio-}" "${daemon_flags[@]}" || return 1
    start_daemon "$2" --advertise-addr "$3.2" --node-name "${2#nuncio-}" --registry "http://$3.1:2379" "${daemon_flags[@]}" || return 1
    engine "$1" load --input /bench/busybox.tar >/dev/null || return 1
    engine "$2" load --input /bench/busybox.tar >/dev/null || return 1
}

# across HOST HOST PATH NETWORK FLAG... : a network of both hosts, with a container on each.
across() {
    local near=$1 far=$2 path=$3 network=$4
    shift 4
    engine "$near" network create -d overlay "$@" "$network" >/dev/null || return 1
    stand "$near" "$path-client" --network "$network" || return 1
    until_true 10 engine "$far" network inspect "$network" || return 1
    stand "$far" "$path-server" --network "$network" || return 1
    client_net[$path]=$(net_of "$near" "$path-client")
    server_net[$path]=$(net_of "$far" "$path-server")
    server_address[$path]=$(address_of "$far" "$path-server" "$network")
}

# What one core of this machine seals, and what two cores seal and open, without any network.
make_openssl() {
    command -v openssl >/dev/null
}

make_openssl2() {
    make_openssl
}

make_docker() {
    make_host docker
    start_daemon docker || return 1
    pair docker docker /bench/busybox-docker.tar
}

make_bridge() {
    make_host nuncio
    start_daemon nuncio --advertise-addr 198.18.9.1 || return 1
    pair nuncio bridge /bench/busybox.tar
}

# pair HOST PATH ARCHIVE : two containers on the host's default bridge.
pair() {
    local host=$1 path=$2
    [ "$host" != docker ] || docker_archive
    engine "$host" load --input "$3" >/dev/null || return 1
    stand "$host" client || return 1
    stand "$host" server || return 1
    client_net[$path]=$(net_of "$host" client)
    server_net[$path]=$(net_of "$host" server)
    server_address[$path]=$(address_of "$host" server bridge)
}

# Docker 20.10 loads no OCI archive.
docker_archive() {
    skopeo copy --quiet "oci-archive:$work/busybox.tar" "docker-archive:$work/busybox-docker.tar:busybox:latest"
}

# stand HOST NAME FLAG... : a container that does nothing.
stand() {
    local host=$1 name=$2
    shift 2
    engine "$host" run -d --name "$name" "$@" busybox sleep 864000 >/dev/null 2>>"$work/log-$host"
}

# net_of HOST CONTAINER : its network namespace, as this machine sees it.
net_of() {
    echo "/proc/${first[$1]}/root$(on "$1" realpath "$(engine "$1" inspect -f '{{.NetworkSettings.SandboxKey}}' "$2")")"
}

# address_of HOST CONTAINER NETWORK
address_of() {
    engine "$1" inspect -f "{{(index .NetworkSettings.Networks \"$3\").IPAddress}}" "$2"
}

# serve PATH : redis, iperf3 and what `nuncio-bench serve` offers, at the path's server.
serve() {
    local net
    [[ $1 != openssl* ]] || return 0
    for net in "${client_net[$1]}" "${server_net[$1]}"; do
        # The same for all, whatever this machine prefers; and ports for all the short connections.
        nsenter --net="$net" sh -ec '
            echo reno >/proc/sys/net/ipv4/tcp_congestion_control
            echo 10000 65000 >/proc/sys/net/ipv4/ip_local_port_range
            echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse'
    done
    serve_one "$1" chroot "$root" redis-server --protected-mode no --save '' --dir /tmp --maxclients 4000
    serve_one "$1" chroot "$root" iperf3 -s
    serve_one "$1" "$LOAD" serve "${server_address[$1]}"
    until_true 10 listens "$1" 6379 5201 5301 || fail "the servers of $1 do not come up: $(tail -n 5 "$work/log-$1")"
}

serve_one() {
    local path=$1
    shift
    nsenter --net="${server_net[$path]}" "$@" >>"$work/log-$path" 2>&1 &
    servers+=($!)
    disown # or the shell reports its end
}

# listens PATH PORT...
listens() {
    local net=${server_net[$1]} port listening
    shift
    listening=$(nsenter --net="$net" ss -Hltn)
    for port in "$@"; do
        grep -q ":$port " <<<"$listening" || return 1
    done
}

remove_servers() {
    [ ${#servers[@]} = 0 ] || kill -KILL "${servers[@]}" 2>/dev/null || true
}

remove_plain_hosts() {
    local name
    for name in "${plain[@]}"; do ip netns del "$name" || true; done
}
