# The container runtimes that nuncio is compared with, out of Debian's packages, each on a host of its own. Sourced by
# runtime.sh.
# shellcheck shell=bash
#
# A host is a network, mount and process namespace; its root is the unpacked packages, its /var/lib a directory of its
# own on the disk. When its first process ends, all of its processes do.

# Needed by what the packages do when they are installed, or by programs of theirs that are not run here.
engines_unneeded="adduser debconf init-system-helpers lsb-base procps readline-common sysvinit-utils dbus \
    default-dbus-session-bus dbus-session-bus libnss-systemd systemd systemd-sysv uidmap slirp4netns fuse-overlayfs \
    buildah git ca-certificates passwd perl dmsetup criu python3 gnupg libpam-runtime libpam-modules libpam-modules-bin \
    golang-github-containernetworking-plugin-dnsname"

# Unpacks the programs into $engines.
unpack_engines() {
    unpack_packages bench-engines "$here/engines.sh" complete_engines "$engines_unneeded" \
        docker.io podman crun conmon netavark docker-registry iptables nftables iproute2 busybox-static
    engines=$unpacked
}

complete_engines() {
    oci_busybox_links "$unpacked"
    local program
    for program in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
        ln -sf xtables-nft-multi "$unpacked/usr/sbin/$program" # as Debian's alternatives are by default
    done
    configure_podman
}

configure_podman() {
    mkdir -p "$unpacked/etc/containers"
    printf '[storage]\ndriver = "overlay"\nrunroot = "/run/containers"\ngraphroot = "/var/lib/containers"\n' \
        >"$unpacked/etc/containers/storage.conf"
    printf '{"default":[{"type":"insecureAcceptAnything"}]}' >"$unpacked/etc/containers/policy.json"
    printf 'unqualified-search-registries = ["localhost"]\n[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n' \
        >"$unpacked/etc/containers/registries.conf"
    printf '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "crun"\n[network]\nnetwork_backend = "netavark"\n' \
        >"$unpacked/etc/containers/containers.conf"
}

# prepare : the programs, and what hosts are made of, in $work and $engines. All of it goes again at the end, by the script's
# clean_up.
prepare() {
    [ "$(id -u)" = 0 ] || fail "namespaces need root: run it as root"
    NUNCIO=$(find_program "${NUNCIO:-nuncio}")
    LOAD=$(find_program "${LOAD:-nuncio-bench}")
    trap 'exit 130' INT TERM
    trap clean_up EXIT
    make_disk
    unpack_engines
    "$here/../tests/support/busybox.sh"
    cp "$NUNCIO" "$work/nuncio"
    cp "$here/../target/images/busybox.oci.tar" "$work/busybox.tar"
}

# make_disk : a file system of its own on this machine's disk, so that what others write is
# not synced with it. It is $state, and $work what all hosts see as /bench.
make_disk() {
    state=$(mktemp -d "$here/../target/bench-state.XXXXXX")
    state=$(realpath "$state")
    truncate -s 16G "$state.disk"
    mkfs.ext4 -q "$state.disk"
    mount -o loop "$state.disk" "$state"
    work=$state/work
    mkdir "$work"
}

remove_disk() {
    [ -n "${state-}" ] || return 0
    until_true 10 umount "$state" || umount -l "$state" || true
    rmdir "$state"
    rm -f "$state.disk"
}

# make_host NAME : a network namespace, and a first process that holds the other two.
make_host() {
    local name=$1
    mkdir -p "$state/$name/root" "$state/$name/lib"
    ip netns add "$stem-$name"
    ip -n "$stem-$name" link set lo up
    # docker and podman wait for an address to come up on a default route
    ip -n "$stem-$name" link add up0 type veth peer name up1
    ip -n "$stem-$name" addr add 198.18.9.1/24 dev up0
    ip -n "$stem-$name" link set up0 up
    ip -n "$stem-$name" link set up1 up
    ip -n "$stem-$name" route add default via 198.18.9.2
    hold "$name"
}

# hold NAME : the first process of a host.
hold() {
    local name=$1
    nsenter --net="/run/netns/$stem-$name" unshare --mount --pid --fork --kill-child --propagation private \
        "$here/host.sh" "$engines" "$state/$name" "$work" >>"$work/log-$name" 2>&1 &
    holders[$name]=$!
    until_true 10 test -e "$work/$name.ready" || fail "there is no host for $name: $(tail -n 5 "$work/log-$name")"
    first[$name]=$(pgrep -P "${holders[$name]}")
}

# on HOST PROGRAM... : runs it there.
on() {
    local name=$1
    shift
    nsenter --target "${first[$name]}" --mount --pid --net --root --wd \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root SSL_CERT_FILE=/bench/roots.pem "$@"
}

# start HOST PROGRAM... : in the background.
start() {
    local name=$1
    shift
    on "$name" "$@" >>"$work/log-$name" 2>&1 &
    disown # or the shell reports its end
}

# until_true SECONDS PROGRAM... : until it succeeds, for a time.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.05
    done
}

# start_engine NAME : its daemon, if it has one, and a registry beside it; fails if it cannot run here.
start_engine() {
    make_host "$1"
    start "$1" docker-registry serve /bench/registry.yml
    start_daemon "$1" --advertise-addr 198.18.9.1 --insecure-registry 127.0.0.1:5000
}

# start_daemon NAME FLAG... : the daemon of a host, if it has one; the flags are for nuncio's. Fails if it does not answer.
start_daemon() {
    local name=$1
    shift
    case $name in
        nuncio*)
            start "$name" /bench/nuncio daemon --data-root /var/lib/nuncio --exec-root /run/nuncio \
                -H unix:///run/engine.sock "$@"
            ;;
        docker)
            start docker dockerd -H unix:///run/engine.sock --storage-driver overlay2 \
                --cgroup-parent "/$stem" --exec-opt native.cgroupdriver=cgroupfs
            ;;
    esac
    until_true 30 engine "$name" ps || return 1
}

# engine NAME WORD... : its client.
engine() {
    local name=$1
    shift
    # shellcheck disable=SC2046 # words
    on "$name" $(client_of "$name") "$@"
}

# The words that a client begins with.
client_of() {
    case $1 in
        nuncio | nuncio-[a-d]) echo /bench/nuncio -H unix:///run/engine.sock ;;
        nuncio-docker | docker) echo docker -H unix:///run/engine.sock ;;
        podman) echo podman --cgroup-manager cgroupfs ;;
    esac
}

# host_of PATH : where it is measured.
host_of() {
    case $1 in
        nuncio-docker) echo nuncio ;;
        crun) echo podman ;;
        *) echo "$1" ;;
    esac
}

# daemons PATH : the processes that serve, as this machine numbers them.
daemons() {
    case $1 in
        nuncio) pgrep --ns "${first[nuncio]}" --nslist pid -f '^/bench/nuncio daemon' ;;
        docker) pgrep --ns "${first[docker]}" --nslist pid -x 'dockerd|containerd' ;;
    esac
}

# shims PATH : those that hold a container each.
shims() {
    case $1 in
        nuncio) pgrep --ns "${first[nuncio]}" --nslist pid -x nuncio-shim ;;
        docker) pgrep --ns "${first[docker]}" --nslist pid -f containerd-shim ;;
        podman) pgrep --ns "${first[podman]}" --nslist pid -x conmon ;;
    esac
}

# Ends all hosts, with all their processes, and removes what they leave outside of their directories.
remove_hosts() {
    local name directory
    for name in "${!holders[@]}"; do
        kill -KILL "${holders[$name]}" 2>/dev/null || true
        wait "${holders[$name]}" 2>/dev/null || true
        until_true 10 no_process_of "$name" || echo "bench: processes of $name do not end" >&2
        ip netns del "$stem-$name" || true
    done
    for directory in /sys/fs/cgroup/*/"$stem" /sys/fs/cgroup/*/libpod_parent /sys/fs/cgroup/*/nuncio /sys/fs/cgroup/nuncio; do
        [ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
}

no_process_of() {
    [ ! -e "/proc/${first[$1]:-none}" ]
}
