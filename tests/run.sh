#!/usr/bin/env bash
# All tests, then a look at whether they left anything on this machine. `make test` calls this.
set -euo pipefail
cd "$(dirname "$0")/.."
# Where packaging/deps.sh puts the programs that it does not install.
export PATH=$PWD/target/tools:/usr/local/sbin:/usr/sbin:/sbin:$PATH

if [ "$(id -u)" != 0 ]; then
    echo "test: the tests make network namespaces: run them as root" >&2
    exit 1
fi

# What on this machine bears a name that nuncio or its tests give: namespaces, mounts, links, cgroups, nft tables,
# processes of a binary built here.
ours() {
    ip netns list | sed -n 's/^\(\(nt-\|nuncio\)[^ ]*\).*/namespace \1/p'
    awk '$5 ~ /\/(nt-[0-9]|nuncio)/ { print "mount", $5 }' /proc/self/mountinfo
    ip -o link | sed -nE 's/^[0-9]+: ((nuncio|nb-|nv-|nx-|nt-)[^:@]*).*/link \1/p'
    find /sys/fs/cgroup -mindepth 1 -type d -path '*/nuncio*' 2>/dev/null | sed 's/^/cgroup /'
    nft list tables 2>/dev/null | sed -n '/nuncio/s/^/nft /p'
    local exe
    for exe in /proc/[0-9]*/exe; do
        case $(readlink "$exe") in "$PWD"/target/*) echo "process $(tr '\0' ' ' <"${exe%exe}cmdline")" ;; esac
    done
}

before=$(ours | sort)
started=$SECONDS
tests=passed
tests/several.py 2 --workspace --locked || tests=failed
cargo test --workspace --locked --doc || tests=failed
# The parent of all containers' cgroups: empty unless nuncio runs here in earnest, and then this fails as it should.
rmdir /sys/fs/cgroup/nuncio /sys/fs/cgroup/*/nuncio 2>/dev/null || true
left=$(comm -13 <(echo "$before") <(ours | sort))

echo
echo "== make test: $tests after $((SECONDS - started)) s"
if [ -n "$left" ]; then
    echo "== these were left behind:"
    echo "$left"
    exit 1
fi
echo "== no namespace, mount, link, cgroup, nft table or process was left behind"
[ "$tests" = passed ]
