#!/usr/bin/env bash
# The first process of a host of bench/runtime.sh: host.sh ROOT STATE WORK. Puts the root together, then reaps.
set -euo pipefail
root=$1 state=$2 work=$3
new=$state/root

# The unpacked packages below, what this host writes above; /var/lib lies on the disk itself, as overlayfs needs it.
mkdir -p "$state/upper" "$state/overlay"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$state/upper,workdir=$state/overlay" "$new"
mkdir -p "$new/bench" "$new/old"
mount --bind "$state/lib" "$new/var/lib"
mount --bind "$work" "$new/bench"
mount -t tmpfs -o mode=755 tmpfs "$new/run"
mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys"
mount --rbind /sys/fs/cgroup "$new/sys/fs/cgroup"
# crun takes no cgroup2 beside the older hierarchies if that has controllers
[ "${state##*/}" != podman ] || ! mountpoint -q "$new/sys/fs/cgroup/unified" || umount "$new/sys/fs/cgroup/unified"
mount --rbind /dev "$new/dev"
cd "$new"
pivot_root . old
umount -l /old
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec 0</dev/null
echo >/bench/"${state##*/}".ready
exec docker-init -- sleep 864000
