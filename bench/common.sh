# What all benchmarks say, look up and write down in the same way. Sourced by each.
# shellcheck shell=bash

fail() {
    echo "bench: $*" >&2
    exit 1
}

# one_of WHAT WORD LIST... : fails, and says what would be right, if WORD is not in the list.
one_of() {
    local what=$1 word=$2
    shift 2
    [[ " $* " == *" $word "* ]] || fail "there is no $what '$word'; there are: $*"
}

find_program() {
    local found
    found=$(command -v "$1") || fail "there is no program $1: build it with: make build bench-tools"
    realpath "$found"
}

# read_arguments [help | ROUNDS] [COLUMN...] : sets $rounds, $wanted and, by PATHS, $paths; all there are unless given. A
# $duration is looked at, where there is one.
read_arguments() {
    local word
    if [ "${1-}" = help ]; then
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
        printf '\ncolumns: %s\npaths: %s\n' "${all_columns[*]}" "${all_paths[*]}"
        exit
    fi
    if [[ ${1-} =~ ^[0-9]+$ ]]; then
        rounds=$1
        shift
        [ "$rounds" -gt 0 ] || fail "0 rounds have no median: give 1 or more"
    fi
    [[ ${duration-2} =~ ^[1-9][0-9]?$ ]] || fail "DURATION is '$duration': give seconds from 1 to 99"
    for word in "$@"; do one_of column "$word" "${all_columns[@]}"; done
    wanted=("$@")
    [ $# -gt 0 ] || wanted=("${all_columns[@]}")
    read -ra paths <<<"${PATHS:-${all_paths[*]}}"
    for word in "${paths[@]}"; do one_of path "$word" "${all_paths[@]}"; done
}

# unpack_packages DIRECTORY SCRIPT COMPLETE UNNEEDED PACKAGE... : the packages below target/DIRECTORY, whose full name is in
# $unpacked then. None is installed, so none starts a service. COMPLETE adds there what they lack. It is done anew when SCRIPT,
# which says all this, has changed.
unpack_packages() {
    local script=$2 complete=$3 unneeded=$4 made
    unpacked=$here/../target/$1
    shift 4
    made=$(oci_recipe_id "$here/../examples/images/oci.sh" "$script")
    if [ "$(cat "$unpacked/made" 2>/dev/null)" != "$made" ]; then
        echo "== unpack $*"
        rm -rf "$unpacked"
        oci_debian_root "$unpacked" "$unneeded" "$@"
        "$complete"
        echo "$made" >"$unpacked/made"
    fi
    unpacked=$(realpath "$unpacked")
}

# measure_all COLUMN... : of those that are wanted, column by column, all paths in turn.
measure_all() {
    local column path
    for column in "$@"; do
        [[ " ${wanted[*]} " == *" $column "* ]] || continue
        for path in "${paths[@]}"; do
            ! does "$path" "$column" || measure "$path" "$column"
        done
        printf 'round %s of %s, %s, after %s s\n' "$round" "$rounds" "$column" "$SECONDS"
    done
}

# measure PATH COLUMN
measure() {
    "measure_$2" "$1"
}

# report SUITE SAMPLES : only a whole run is worth the documentation.
report() {
    local whole=()
    if [ "${wanted[*]}" = "${all_columns[*]}" ] && [ -z "${PATHS-}" ] && [ "$rounds" -ge 5 ]; then
        whole=(--document "$here/../docs/PERFORMANCE.md")
    fi
    "$LOAD" report "$2" --suite "$1" --results "$here/results" "${whole[@]}" \
        --revision "$(git -C "$here" describe --always --dirty 2>/dev/null || echo unknown)"
}

# median : of the numbers on its input, a line each; of none, none.
median() {
    sort -g | awk '{ all[NR] = $1 } END { if (NR) print NR % 2 ? all[(NR + 1) / 2] : (all[NR / 2] + all[NR / 2 + 1]) / 2 }'
}
