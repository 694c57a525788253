#!/usr/bin/env bash
# What a container costs, beside Debian's docker and podman.
#
#   bench/runtime.sh [ROUNDS] [COLUMN...]   5 rounds of all columns unless given; `bench/runtime.sh help` lists them
#
# docs/PERFORMANCE.md says how it is measured. Needs root, and a machine that does nothing else. Variables: PATHS, a list
# of who is measured; SAMPLES, a file to which what is measured is added, for a run in several goes; NUNCIO and LOAD, the
# programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../examples/images/oci.sh
. "$here/../examples/images/oci.sh"
# shellcheck source=common.sh
. "$here/common.sh"
# shellcheck source=engines.sh
. "$here/engines.sh"
# shellcheck source=images.sh
. "$here/images.sh"
# shellcheck source=runtime_columns.sh
. "$here/runtime_columns.sh"

stem=nuncio-bench-$$
all_paths=(nuncio nuncio-docker docker podman crun bare)
all_columns=("${columns[@]}" "${once[@]}")
rounds=5
declare -A holders=() first=()

main() {
    read_arguments "$@"
    prepare
    samples=${SAMPLES:-$work/samples}
    make_image
    fill_work
    start_engines
    local round
    for ((round = 1; round <= rounds; round++)); do measure_all "${columns[@]}"; done
    round=1
    measure_once
    report runtime "$samples"
}

# What all hosts see as /bench.
fill_work() {
    cp "$LOAD" "$work/load"
    cp "$image_gzip" "$work/gzip.tar"
    cp "$image_plain" "$work/plain.tar"
    # the packages bring none, and clients of registries want some even where there is no TLS
    cp /etc/ssl/certs/ca-certificates.crt "$work/roots.pem"
    printf 'version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: /bench/registry\nhttp:\n  addr: 127.0.0.1:5000\n' \
        >"$work/registry.yml"
}

# nuncio is always there, for it fills the registry and makes of the image for the tests one that all others take.
start_engines() {
    local path host up=()
    start_engine nuncio || fail "nuncio does not come up: $(tail -n 20 "$work/log-nuncio")"
    engine nuncio load --input /bench/busybox.tar >/dev/null
    engine nuncio save --output /bench/busybox-docker.tar busybox
    engine nuncio load --input /bench/gzip.tar >/dev/null
    engine nuncio tag bench:latest "$image"
    engine nuncio push "$image" >/dev/null
    engine nuncio rmi -f "$image" bench:latest >/dev/null
    for path in "${paths[@]}"; do
        host=$(host_of "$path")
        if [ "$host" != bare ] && [ -z "${first[$host]-}" ] && ! { start_engine "$host" && begin "$host"; }; then
            echo "== without $host, which does not come up here: $(tail -n 3 "$work/log-$host")"
            failed+=" $host "
        fi
        [[ ${failed-} == *" $host "* ]] || up+=("$path")
    done
    paths=("${up[@]}")
    stand nuncio
    [[ " ${paths[*]} " != *" crun "* ]] || make_bundle
}

# begin HOST : with the image that containers are made of, and one that stands for exec and its shim.
begin() {
    engine "$1" load --input /bench/busybox-docker.tar >/dev/null 2>&1 || return 1
    stand "$1"
}

stand() {
    engine "$1" run -d --name standing --network none busybox sleep 864000 >/dev/null 2>>"$work/log-$1"
}

# A bundle as podman makes it, which tells crun all that it tells it for a container of `true`.
make_bundle() {
    local id source
    id=$(engine podman create --network none busybox true)
    engine podman init "$id" >/dev/null
    source=$(echo "$state"/podman/lib/containers/overlay-containers/"$id"/userdata/config.json)
    mkdir "$work/bundle"
    sed -E 's|("cgroupsPath": ?")[^"]*|\1/'"$stem"'/life|' "$source" >"$work/bundle/config.json"
}

# What needs no rounds, or changes the hosts.
measure_once() {
    local name number
    measure_all size
    [[ " ${wanted[*]} " == *" ps "* ]] || return 0
    for name in "${!first[@]}"; do
        # shellcheck disable=SC2046 # words
        on "$name" sh -ec '
            number=1 containers=$1 running=$2
            shift 2
            while [ $number -lt $containers ]; do
                if [ $number -lt $running ]; then
                    "$@" run -d --network none busybox sleep 864000
                else
                    "$@" create --network none busybox true
                fi >/dev/null
                number=$((number + 1))
            done' sh "$containers" "$running" $(client_of "$name")
        printf '%s containers of %s, after %s s\n' "$containers" "$name" "$SECONDS"
    done
    measure_all ps
}

clean_up() {
    local status=$?
    trap - EXIT
    [ $status = 0 ] || [ -z "${work-}" ] || tail -n 12 "$work"/log-* >&2
    remove_hosts
    remove_disk
    exit $status
}

main "$@"
