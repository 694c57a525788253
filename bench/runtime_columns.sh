# How each column of the runtimes is measured. Sourced by runtime.sh.
# shellcheck shell=bash
#
# measure_COLUMN PATH writes its figures with `sample`. All but those of `once` are measured in each round.

columns=(run-none run-bridge life exec pull load load-plain save idle shim)
once=(ps size)
image=127.0.0.1:5000/bench:latest
containers=500
running=50

# does PATH COLUMN : is that measured there?
does() {
    case $1:$2 in
        crun:life | bare:load | bare:load-plain | bare:save) ;;
        crun:* | bare:*) return 1 ;;
        podman:life | podman:idle) return 1 ;; # nobody serves an API
        nuncio-docker:run-* | nuncio-docker:exec | nuncio-docker:ps | nuncio-docker:pull | nuncio-docker:load) ;;
        nuncio-docker:*) return 1 ;;
    esac
}

# sample FIGURE VALUE : for the path and round at hand.
sample() {
    [[ $2 =~ ^[0-9.]+(e[+-]?[0-9]+)?$ ]] || fail "round $round, $path: $1 gave no figure but '$2'"
    printf '%s\t%s\t%s\t%s\n' "$round" "$path" "$1" "$2" >>"$samples"
}

# timed RUNS PROGRAM... : the median of its milliseconds, on the path's host.
timed() {
    local runs=$1
    shift
    on "$(host_of "$path")" /bench/load time --runs "$runs" -- "$@" || fail "$path: $*"
}

# client RUNS WORD... : the same of the path's client.
client() {
    local runs=$1
    shift
    # shellcheck disable=SC2046 # words
    timed "$runs" $(client_of "$path") "$@"
}

measure_run-none() { sample run-none "$(client 5 run --rm --network none busybox true)"; }
measure_run-bridge() { sample run-bridge "$(client 5 run --rm busybox true)"; }
measure_exec() { sample exec "$(client 5 exec standing true)"; }
measure_ps() { sample ps "$(client 15 ps -a)"; }

measure_life() {
    case $1 in
        crun) sample life "$(timed 7 crun --cgroup-manager cgroupfs run --bundle /bench/bundle life)" ;;
        *) sample life "$(on "$1" /bench/load life /run/engine.sock --image busybox --runs 7 -- true)" ;;
    esac
}

measure_pull() {
    local host process
    host=$(host_of "$1")
    without_image "$host"
    for process in $(daemons "$host"); do echo 5 >"/proc/$process/clear_refs"; done
    sample pull "$(client 1 pull "$image")"
    [ "$1" != podman ] || return 0
    sample pull-memory "$(for process in $(daemons "$host"); do of_status "$process" VmHWM; done | total)"
}

measure_load() { load_archive "$1" load /bench/gzip.tar; }
measure_load-plain() { load_archive "$1" load-plain /bench/plain.tar; }

# load_archive PATH FIGURE ARCHIVE : bytes of files a second.
load_archive() {
    local taken
    case $1:$2 in
        bare:load) taken=$(by_itself sh -c "tar -xOf $work/gzip.tar --wildcards './[0-9].tar' | gzip -dc") ;;
        bare:*) taken=$(unpack_by_itself) ;;
        *)
            without_image "$(host_of "$1")"
            taken=$(client 1 load --input "$3")
            ;;
    esac
    sample "$2" "$(rate "$image_bytes" "$taken")"
}

# The same files on the disk as the store has: the layers as they are, and unpacked, all at once.
unpack_by_itself() {
    rm -rf "$state/bare"
    mkdir "$state/bare"
    # shellcheck disable=SC2016 # for the inner shell
    by_itself sh -ec '
        cd "$1"
        tar -xf "$2"
        for layer in [0-9].tar; do
            mkdir "${layer%.tar}"
            tar -xf "$layer" -C "${layer%.tar}" &
        done
        wait
        sync -f .' sh "$state/bare" "$work/plain.tar"
}

# Bytes of the archive a second, until they are on the disk.
measure_save() {
    local taken host archive
    rm -f "$state/copy"
    if [ "$1" = bare ]; then
        sync
        taken=$(by_itself sh -c "cat $work/plain.tar >$state/copy && sync $state/copy")
        sample save "$(rate "$(stat -c %s "$state/copy")" "$taken")"
        return
    fi
    host=$(host_of "$1")
    engine "$host" image inspect "$(saved_name "$1")" >/dev/null 2>&1 ||
        engine "$host" load --input /bench/plain.tar >/dev/null
    archive=$state/$host/lib/saved.tar
    rm -f "$archive"
    sync
    taken=$(timed 1 sh -c "$(client_of "$1") save --output /var/lib/saved.tar $(saved_name "$1") && sync /var/lib/saved.tar")
    sample save "$(rate "$(stat -c %s "$archive")" "$taken")"
}

saved_name() {
    [ "$1" = podman ] && echo localhost/bench:latest || echo bench:latest
}

measure_idle() {
    sample idle "$(for process in $(daemons "$1"); do of_status "$process" VmRSS; done | total)"
}

# What no other process has of those that hold the containers; by container.
measure_shim() {
    local process
    sample shim "$(for process in $(shims "$1"); do
        awk '/^Private_(Clean|Dirty):/ { sum += $2 } END { print sum * 1024 }' "/proc/$process/smaps_rollup"
    done | awk '{ sum += $1 } END { print sum / NR }')"
}

measure_size() {
    local programs
    case $1 in
        nuncio) programs=(/bench/nuncio) ;;
        docker) programs=(/usr/sbin/dockerd /usr/bin/docker /usr/bin/docker-proxy /usr/bin/docker-init /usr/bin/containerd
            /usr/bin/containerd-shim-runc-v2 /usr/sbin/runc) ;;
        podman) programs=(/usr/bin/podman /usr/bin/conmon /usr/bin/crun /usr/lib/podman/netavark) ;;
    esac
    sample size "$(on "$1" stat -L -c %s "${programs[@]}" 2>/dev/null | total)"
}

# A line of a process's status, in bytes.
of_status() {
    awk -v line="$2:" '$1 == line { print $2 * 1024 }' "/proc/$1/status"
}

total() {
    awk '{ sum += $1 } END { print sum }'
}

# rate BYTES MILLISECONDS : a second.
rate() {
    awk "BEGIN { print $1 / $2 * 1e3 }"
}

# by_itself PROGRAM... : its milliseconds, without any runtime.
by_itself() {
    sync
    "$LOAD" time -- "$@"
}

# without_image HOST : the image is not there, nor on its way to the disk.
without_image() {
    engine "$1" rmi -f "$image" bench:latest >/dev/null 2>&1 || true
    sync
}
