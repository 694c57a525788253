# What demo.sh and down.sh share: two hosts as network namespaces, a daemon in each, and how all of it goes away.
# shellcheck shell=bash

# Where sockets, logs and the state of running processes lie, and where images and containers do.
RUN=/run/nuncio-demo
DATA=/var/lib/nuncio-demo
# The underlay is a bridge in a namespace of its own: nothing of it is in this machine's own network, and no route
# leads out of it. The addresses are of the range for benchmarks (RFC 2544), which no network routes.
SWITCH=nuncio-demo-net
HOSTS=(a b)
declare -A ADDRESS=([a]=198.18.77.1 [b]=198.18.77.2)

bold='' faint='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' faint=$'\e[2m' plain=$'\e[0m'; fi

say() {
    printf '\n%s== %s%s\n' "$bold" "$*" "$plain"
}

# Ends the script: its EXIT trap takes everything down.
fail() {
    printf '\ndemo: %s\n' "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "namespaces need root: run it as root, for instance with sudo"
}

# wait_until SECONDS WHAT COMMAND... : runs COMMAND until it succeeds.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "$what: not so in time ($*)"
        sleep 0.05
    done
}

socket() {
    echo "unix://$RUN/$1/nuncio.sock"
}

# on HOST ARGUMENT... : runs a nuncio command on a host, shown before its output, which is left in $answer.
on() {
    local host=$1 status=0
    shift
    printf '%shost-%s#%s %s\n' "$faint" "$host" "$plain" "$(shown nuncio "$@")"
    quietly "$host" "$@" || status=$?
    [ -z "$answer" ] || printf '%s\n' "$answer"
    [ $status -eq 0 ] || fail "on host-$host: $(shown nuncio "$@"): exit status $status (124: no answer in time)"
}

# The same without showing it, and a failure is the caller's.
quietly() {
    local host=$1
    shift
    answer=$(timeout --foreground -k 2 60 "$NUNCIO" -H "$(socket "$host")" "$@" </dev/null)
}

# The words of a command as one would type them.
shown() {
    local word text=
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./:=@,+-]* | '') text+=" '$word'" ;;
            *) text+=" $word" ;;
        esac
    done
    echo "${text# }"
}

make_underlay() {
    local host
    ip netns add "$SWITCH"
    ip -n "$SWITCH" link add underlay type bridge
    ip -n "$SWITCH" link set underlay up
    for host in "${HOSTS[@]}"; do
        ip netns add "nuncio-demo-$host"
        ip -n "nuncio-demo-$host" link add eth0 type veth peer name "host-$host" netns "$SWITCH"
        ip -n "$SWITCH" link set "host-$host" master underlay up
        ip -n "nuncio-demo-$host" addr add "${ADDRESS[$host]}/24" dev eth0
        ip -n "nuncio-demo-$host" link set lo up
        ip -n "nuncio-demo-$host" link set eth0 up
    done
}

# start_daemon HOST FLAG... : returns when the daemon answers.
start_daemon() {
    local host=$1 pid deadline=$((SECONDS + 10))
    shift
    local daemon=("$NUNCIO" daemon --data-root "$DATA/$host" --exec-root "$RUN/$host" -H "$(socket "$host")"
        --node-name "host-$host" --advertise-addr "${ADDRESS[$host]}" "$@")
    printf '%shost-%s#%s %s\n' "$faint" "$host" "$plain" "$(shown nuncio "${daemon[@]:1}") &"
    mkdir -p "$RUN/$host" "$DATA/$host"
    # nsenter, not `ip netns exec`, which would hide this machine's cgroups; its own session, so that Ctrl-C ends this
    # script alone, which then takes things down in order.
    nsenter --net="/run/netns/nuncio-demo-$host" setsid "${daemon[@]}" </dev/null >"$RUN/$host/daemon.log" 2>&1 9<&- &
    pid=$!
    disown # or the shell reports that it was killed
    until quietly "$host" version 2>/dev/null; do
        if ! kill -0 "$pid" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
            tail -n 20 "$RUN/$host/daemon.log" >&2
            fail "the daemon of host-$host does not answer; above is the end of its log"
        fi
        sleep 0.05
    done
}

# Removes whatever a demo made, however it ended. Nothing there is no error.
take_down() {
    local host pid deadline=$((SECONDS + 10))
    while pid=$(demo_processes) && [ -n "$pid" ] && [ $SECONDS -lt $deadline ]; do
        # shellcheck disable=SC2086 # one word a process
        kill -KILL $pid 2>/dev/null || true
        sleep 0.05
    done
    remove_mounts
    remove_cgroups
    for host in "${HOSTS[@]}"; do ip netns del "nuncio-demo-$host" 2>/dev/null || true; done
    ip netns del "$SWITCH" 2>/dev/null || true
    rm -rf --one-file-system "$RUN" "$DATA"
}

# Process ids of the demo's daemons, shims, ambassadors and clients, and of what runs in its containers.
demo_processes() {
    local path
    # Ours is whoever names the demo's directories and runs the nuncio program.
    grep -ls -e "$RUN/" -e "$DATA/" /proc/[0-9]*/cmdline | while read -r path; do
        case $(readlink "${path%/cmdline}/exe") in
            */nuncio | */nuncio\ \(deleted\)) basename "${path%/cmdline}" ;;
        esac
    done
    # A container's is whoever has a root file system that lies in the demo's data.
    grep -lsE -e "^([^ ]+ ){4}/ .*[=,]$DATA/" /proc/[0-9]*/mountinfo | cut -d/ -f3
    return 0
}

remove_mounts() {
    local target
    # The last mounted comes first.
    awk -v run="$RUN/" -v data="$DATA/" 'index($5, run) == 1 || index($5, data) == 1 { print $5 }' /proc/self/mountinfo |
        tac | while read -r target; do umount "$target" 2>/dev/null || umount -l "$target" 2>/dev/null || true; done
}

remove_cgroups() {
    local id group deadline=$((SECONDS + 5))
    for id in $(cd "$DATA" 2>/dev/null && ls -d -- */containers/* 2>/dev/null); do
        for group in /sys/fs/cgroup/nuncio/"${id##*/}" /sys/fs/cgroup/*/nuncio/"${id##*/}"; do
            # The kernel keeps a group until the last process in it is gone for good.
            while [ -d "$group" ] && ! find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do
                [ $SECONDS -lt $deadline ] || break
                sleep 0.05
            done
        done
    done
    # Others on this machine may have containers too: then this fails, as it should.
    rmdir /sys/fs/cgroup/nuncio /sys/fs/cgroup/*/nuncio 2>/dev/null || true
}
