#!/usr/bin/env bash
# Makes an OCI archive of redis from Debian's packages: examples/redis/build.sh [ARCHIVE]
#
# ARCHIVE is target/images/redis.oci.tar unless given. It is made again only if this recipe has changed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../images/oci.sh
. "$here/../images/oci.sh"

archive=${1:-$here/../../target/images/redis.oci.tar}
recipe=("$here/build.sh" "$here/entrypoint.sh" "$here/../images/oci.sh")
# As in the official image: files written by redis belong to this user, whatever host reads them.
redis_uid=999

mkdir -p "$(dirname "$archive")"
exec 9>"$archive.lock"
flock 9
if oci_is_current "$archive" "${recipe[@]}"; then exit 0; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
oci_debian_root "$root" "adduser init-system-helpers lsb-base procps sysvinit-utils" redis-server redis-tools busybox-static
oci_busybox_links "$root"
printf 'redis:x:%s:%s:redis:/data:/bin/sh\n' "$redis_uid" "$redis_uid" >>"$root/etc/passwd"
printf 'redis:x:%s:\n' "$redis_uid" >>"$root/etc/group"
install -D -m 0755 "$here/entrypoint.sh" "$root/usr/local/bin/entrypoint.sh"
rm -rf "$root"/etc/redis "$root"/var/{lib,log}/redis
mkdir "$root/data"
for tool in redis-server redis-cli redis-benchmark; do
    [ -x "$root/usr/bin/$tool" ] || oci_fail "Debian's redis packages brought no $tool"
done

oci_pack "$archive" redis:latest "$root" '{
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Entrypoint": ["entrypoint.sh"],
    "Cmd": ["redis-server"],
    "WorkingDir": "/data",
    "Volumes": {"/data": {}},
    "ExposedPorts": {"6379/tcp": {}}
}' "$redis_uid:data"
oci_recipe_id "${recipe[@]}" >"$archive.recipe"
