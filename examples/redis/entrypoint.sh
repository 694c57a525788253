#!/bin/sh
# Starts redis as the official image does: as the user redis, and reachable from other containers.
set -e

# `run redis --appendonly yes` and `run redis /my.conf` mean redis-server with these arguments.
case ${1-} in
    -* | *.conf) set -- redis-server "$@" ;;
esac

# Protected mode refuses every peer but loopback. In a container the network is the boundary, so it is off, unless a
# configuration file or an argument says otherwise.
if [ "${1-}" = redis-server ]; then
    shift
    case ${1-} in
        '' | -*) set -- redis-server --protected-mode no "$@" ;;
        *)
            if grep -qi '^[[:space:]]*protected-mode' "$1" 2>/dev/null; then
                set -- redis-server "$@"
            else
                config=$1
                shift
                set -- redis-server "$config" --protected-mode no "$@"
            fi
            ;;
    esac
    if [ "$(id -u)" = 0 ]; then
        find . ! -user redis -exec chown -h redis:redis {} +
        exec su -s /bin/sh -c 'exec "$@"' -- redis sh "$@"
    fi
fi
exec "$@"
