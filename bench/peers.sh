# The programs that nuncio is compared with, out of Debian's packages. Sourced by run.sh.
# shellcheck shell=bash

# Needed by what the packages do when they are installed, or by programs of theirs that are not run here.
unneeded="adduser debconf init-system-helpers lsb-base procps readline-common sysvinit-utils \
    containerd runc tini iptables libdevmapper1.02.1 iproute2"

# Unpacks the programs into $root: none is installed, so none starts a service.
unpack_peers() {
    root=$here/../target/bench-peers
    local made
    made=$(oci_recipe_id "$here/../examples/images/oci.sh" "$here/peers.sh")
    if [ "$(cat "$root/made" 2>/dev/null)" != "$made" ]; then
        echo "== unpack socat, haproxy, nginx, docker-proxy, iperf3 and redis"
        rm -rf "$root"
        oci_debian_root "$root" "$unneeded" \
            socat haproxy nginx libnginx-mod-stream docker.io iperf3 redis-server redis-tools
        rm -f "$root"/usr/sbin/dockerd "$root"/usr/bin/docker
        mknod -m 666 "$root/dev/null" c 1 3
        mknod -m 666 "$root/dev/urandom" c 1 9
        echo "$made" >"$root/made"
    fi
    root=$(realpath "$root")
}
