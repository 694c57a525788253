# The programs that nuncio is compared with, out of Debian's packages. Sourced by run.sh.
# shellcheck shell=bash

# Needed by what the packages do when they are installed, or by programs of theirs that are not run here.
unneeded="adduser debconf init-system-helpers lsb-base procps readline-common sysvinit-utils \
    containerd runc tini iptables libdevmapper1.02.1 iproute2"

# Unpacks the programs into $root.
unpack_peers() {
    unpack_packages bench-peers "$here/peers.sh" complete_peers "$unneeded" \
        socat haproxy nginx libnginx-mod-stream docker.io iperf3 redis-server redis-tools
    root=$unpacked
}

complete_peers() {
    rm -f "$unpacked"/usr/sbin/dockerd "$unpacked"/usr/bin/docker
    mknod -m 666 "$unpacked/dev/null" c 1 3
    mknod -m 666 "$unpacked/dev/urandom" c 1 9
}
