#!/usr/bin/env bash
# How long it takes until all hosts agree again after a fault of the registry, or of the way to it: medians over a few runs.
#
#   bench/faults.sh [RUNS]   3 unless given; a run takes some ten minutes
#
# Runs tests/registry_faults.rs, which strike three etcds and two hosts while containers talk, and tells for each fault how long
# after its end every host knew of all that runs, and the registry too. Needs root. The times are from a debug build, and hold on
# a machine that does nothing else.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

runs=${1:-3}
[[ $runs =~ ^[1-9][0-9]?$ ]] || fail "RUNS is '$runs': give a number from 1 to 99"
cd "$here/.."
export PATH=$PWD/target/tools:$PATH
told=$(mktemp)
trap 'rm -f "$told"' EXIT
for _ in $(seq "$runs"); do
    cargo test --locked --test registry_faults -- --nocapture --test-threads 1 >>"$told"
done
# Of each fault its name, and the seconds, as Rust writes a duration.
sed -nE 's/^(test .* \.\.\. )?(.*): all agree after ([0-9.]+)(m?s)$/\2\t\3\t\4/p' "$told" |
    awk -F '\t' '{ printf "%s\t%.2f\n", $1, $2 / ($3 == "ms" ? 1000 : 1) }' |
    sort -t "$(printf '\t')" -k1,1 -k2,2n |
    awk -F '\t' '
        function tell() {
            middle = (times[int((count + 1) / 2)] + times[int(count / 2) + 1]) / 2
            printf "%-55s %6.2f s, from %.2f to %.2f in %d\n", fault, middle, times[1], times[count], count
        }
        $1 != fault { if (count) tell(); fault = $1; count = 0 }
        { times[++count] = $2 }
        END { if (count) tell() }'
