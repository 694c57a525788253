# How each column is measured. Sourced by run.sh.
# shellcheck shell=bash
#
# measure_COLUMN PATH writes its figures with `sample`.

columns=(bulk1 bulk8 redis1 redis50 redis50p16 connect udp64x1 udp64x64 udp1400x1 udp1400x64 udpgso idle stall size)

# does PATH COLUMN : can that be measured there?
does() {
    case $1:$2 in
        haproxy:udp* | haproxy-splice:udp*) return 1 ;;
        # The first two have no process; the rewrite has the relay's, which carries none of its flows.
        direct:idle | nat:idle | rewrite:idle) return 1 ;;
        direct:size | nat:size | rewrite:size | haproxy-splice:size) return 1 ;;
    esac
}

# sample FIGURE VALUE : for the path and round at hand. A peer that fails is left out of the round, and the others' figures
# are kept.
sample() {
    if [[ ! $2 =~ ^[0-9.]+(e[+-]?[0-9]+)?$ ]]; then
        case $path in
            direct | rewrite | nat | nuncio) fail "round $round, $path: $1 gave no figure but '$2'" ;;
        esac
        echo "== round $round, $path: no figure for $1"
        return
    fi
    printf '%s\t%s\t%s\t%s\n' "$round" "$path" "$1" "$2" >>"$work/samples"
}

# About how long a column takes on one path, in tenths of a second.
column_time() {
    local each=$((duration * 10))
    case $1 in
        bulk1 | bulk8) echo $((each + 4)) ;;
        redis*) echo $((each + 2)) ;;
        connect) echo $((each + 1)) ;;
        udp*) echo $((each / 2 + 6)) ;;
        idle) echo 20 ;;
        stall) echo 7 ;;
        size) echo 0 ;;
    esac
}

measure_bulk1() {
    local before after got
    before=$(cpu "$1")
    bulk "$1" 1
    after=$(cpu "$1")
    got=$(of_received bytes)
    sample bulk1 "$(of_received bits_per_second)"
    case $1 in direct | nat) return ;; esac
    sample cpu "$(awk "BEGIN { print ($after - $before) / 1e6 / ($got / 1e9) }")"
}

measure_bulk8() {
    bulk "$1" 8
    sample bulk8 "$(of_received bits_per_second)"
}

# bulk PATH STREAMS : leaves iperf3's report.
bulk() {
    client chroot "$root" iperf3 -c "$(host "$1")" -p "$(port iperf "$1")" -P "$2" -t "$duration" -J >"$work/iperf" ||
        fail "iperf3 by way of $1: $(sed -n 's/.*"error"://p' "$work/iperf")"
}

# A number of what all streams together have received.
of_received() {
    sed -n "/\"sum_received\"/,/}/s/.*\"$1\":[[:space:]]*\([0-9.e+]*\).*/\1/p" "$work/iperf"
}

# CPU time of the path's processes, in microseconds.
cpu() {
    awk '$1 == "usage_usec" { print $2 }' "$cgroup/$1/cpu.stat"
}

measure_redis1() { redis "$1" redis1 10000 -c 1; }
measure_redis50() { redis "$1" redis50 35000 -c 50; }
measure_redis50p16() { redis "$1" redis50p16 250000 -c 50 -P 16; }

# redis PATH COLUMN REQUESTS OPTION... : REQUESTS for each second of the duration, about.
redis() {
    local path=$1 column=$2 requests=$(($3 * duration)) line
    shift 3
    line=$(client chroot "$root" redis-benchmark -h "$(host "$path")" -p "$(port redis "$path")" \
        -n $requests -t get --csv "$@" | tr -d '"' | grep ^GET,) || fail "redis-benchmark by way of $path"
    sample "$column.ops" "$(cut -d, -f2 <<<"$line")"
    sample "$column.p50" "$(cut -d, -f5 <<<"$line")"
    sample "$column.p99" "$(cut -d, -f7 <<<"$line")"
}

measure_connect() {
    sample connect "$(load connect "$(host "$1"):$(port brief "$1")" --seconds "$duration")"
}

measure_udp64x1() { udp "$1" udp64x1 1 --size 64 --flows 1; }
measure_udp64x64() { udp "$1" udp64x64 1 --size 64 --flows 64; }
measure_udp1400x1() { udp "$1" udp1400x1 1 --size 1400 --flows 1; }
measure_udp1400x64() { udp "$1" udp1400x64 1 --size 1400 --flows 64; }
measure_udpgso() { udp "$1" udpgso 2 --size 1400 --gso; }

# udp PATH COLUMN FIELD OPTION... : the datagrams or the bits a second.
udp() {
    local path=$1 column=$2 field=$3 rates
    shift 3
    rates=$(load udp "$(host "$path"):$(port udp "$path")" --control "$server:${server_port[control]}" \
        --seconds "$(awk "BEGIN { print $duration / 2 }")" "$@")
    sample "$column" "$(cut -d' ' -f"$field" <<<"$rates")"
}

# A fresh forwarder, since what an old one has allocated once it uses again.
measure_idle() {
    restart "$1"
    sample idle "$(load idle "$(host "$1"):$(port hold "$1")" --flows 2000 --cgroup "$cgroup/$1")"
}

measure_stall() {
    sample stall "$(load stall "$(host "$1"):$(port hold "$1")")"
}

measure_size() {
    sample size "$(program "$1" | xargs stat -L -c %s | awk '{ sum += $1 } END { print sum }')"
}

# load COMMAND... : of nuncio-bench, at the client's end.
load() {
    client "$LOAD" "$@" || fail "$1 by way of $path"
}
