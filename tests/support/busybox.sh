#!/usr/bin/env bash
# Makes the image the tests run shells in: busybox, and socat since busybox has no UDP server.
# tests/support/busybox.sh [ARCHIVE]; ARCHIVE is target/images/busybox.oci.tar unless given.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../../examples/images/oci.sh
. "$here/../../examples/images/oci.sh"

archive=${1:-$here/../../target/images/busybox.oci.tar}
recipe=("$here/busybox.sh" "$here/../../examples/images/oci.sh")

mkdir -p "$(dirname "$archive")"
exec 9>"$archive.lock"
flock 9
if oci_is_current "$archive" "${recipe[@]}"; then exit 0; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
oci_debian_root "$work/root" "debconf readline-common" busybox-static socat
oci_busybox_links "$work/root"
oci_pack "$archive" busybox:latest "$work/root" '{
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["sh"]
}'
oci_recipe_id "${recipe[@]}" >"$archive.recipe"
