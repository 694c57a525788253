#!/usr/bin/env bash
# Packs the ambassador into an archive that `docker load` takes: examples/ambassador/build.sh BINARY [ARCHIVE]
#
# BINARY is a static nuncio-ambassador; ARCHIVE is target/images/ambassador.tar unless given. With MOST set, a binary of
# more bytes is refused.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../images/oci.sh
. "$here/../images/oci.sh"

[ $# -ge 1 ] || oci_fail "say which binary: examples/ambassador/build.sh BINARY [ARCHIVE]"
binary=$1
archive=${2:-$here/../../target/images/ambassador.tar}

size=$(stat -c %s "$binary")
if [ "$size" -gt "${MOST:-$size}" ]; then oci_fail "$binary has $size bytes, more than $MOST"; fi

mkdir -p "$(dirname "$archive")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{dev,etc,proc,sys,tmp}
chmod 1777 "$root/tmp"
# By the name that the daemon's own image has it under, so that both are used alike.
install -m 0755 "$binary" "$root/nuncio"

OCI_FOR_DOCKER=1 oci_pack "$archive" nuncio/ambassador:latest "$root" '{
    "Env": ["PATH=/"],
    "Entrypoint": ["/nuncio", "ambassador"]
}'
echo "packed $archive: nuncio/ambassador, $((size / 1024)) KiB"
