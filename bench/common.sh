# What both benchmarks say and look up in the same way. Sourced by run.sh and runtime.sh.
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
