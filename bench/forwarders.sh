# Every path's forwarder: how it is set up and started. Sourced by run.sh.
# shellcheck shell=bash

# Writes the peers' configurations.
configure_peers() {
    mkdir -p "$root/etc/haproxy" "$root/etc/nginx" "$root/var/log/nginx" "$root/var/lib/nginx"
    haproxy_config haproxy >"$root/etc/haproxy/haproxy.cfg"
    haproxy_config haproxy-splice "option splice-auto" >"$root/etc/haproxy/haproxy-splice.cfg"
    nginx_config >"$root/etc/nginx/bench.conf"
}

# haproxy_config PATH [OPTION]
haproxy_config() {
    local service
    printf 'global\n  maxconn 5000\ndefaults\n  mode tcp\n  %s\n' "${2-}"
    printf '  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n'
    for service in "${tcp_services[@]}"; do
        printf 'listen %s\n  bind :%s\n  server s %s:%s\n' \
            "$service" "$(port "$service" "$1")" "$server" "$(port "$service" direct)"
    done
}

nginx_config() {
    local service
    printf 'load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n'
    printf 'user root;\ndaemon off;\npid /tmp/nginx.pid;\nerror_log stderr crit;\n'
    printf 'worker_processes auto;\nevents { worker_connections 8192; }\nstream {\n'
    for service in "${tcp_services[@]}"; do
        printf '  server { listen %s reuseport; proxy_pass %s:%s; }\n' \
            "$(port "$service" nginx)" "$server" "$(port "$service" direct)"
    done
    printf '  server { listen %s udp reuseport; proxy_pass %s:%s; proxy_timeout 5s; }\n}\n' \
        "$(port udp nginx)" "$server" "$(port udp direct)"
}

# start PATH : starts the path's forwarder in the middle, within the path's cgroup.
start() {
    local path=$1 service
    case $path in
        direct) ;;
        nat) ;; # see nat_on
        rewrite) forward "$path" "$NUNCIO" ambassador --direct-cgroup "$cgroup/client/rewritten" $(nuncio_forwards "$path") ;;
        nuncio) forward "$path" "$NUNCIO" ambassador $(nuncio_forwards "$path") ;;
        haproxy | haproxy-splice) forward "$path" chroot "$root" haproxy -db -f "/etc/haproxy/$path.cfg" ;;
        nginx) forward "$path" chroot "$root" nginx -c /etc/nginx/bench.conf ;;
        docker-proxy)
            for service in "${tcp_services[@]}" udp; do
                # It tells by descriptor 3 that it is up, and would close whatever that is.
                forward "$path" chroot "$root" docker-proxy -proto "$(protocol "$service")" -host-ip 0.0.0.0 \
                    -host-port "$(port "$service" "$path")" \
                    -container-ip "$server" -container-port "$(port "$service" direct)" 3>/dev/null
            done
            ;;
        socat)
            for service in "${tcp_services[@]}"; do
                forward "$path" chroot "$root" socat "TCP-LISTEN:$(port "$service" "$path"),fork,reuseaddr,backlog=4096" \
                    "TCP:$server:$(port "$service" direct)"
            done
            # A process for each client's port, which ends after this silence.
            forward "$path" chroot "$root" socat -T 3 "UDP-LISTEN:$(port udp "$path"),fork,reuseaddr" \
                "UDP:$server:$(port udp direct)"
            ;;
    esac
}

# A --listen and a --to for each service. What is rewritten is one address, so the path has no wildcard.
nuncio_forwards() {
    local service at=0.0.0.0
    [ "$1" != rewrite ] || at=$middle
    for service in "${tcp_services[@]}" udp; do
        printf ' --listen %s://%s:%s --to %s://%s:%s' "$(protocol "$service")" "$at" "$(port "$service" "$1")" \
            "$(protocol "$service")" "$server" "$(port "$service" direct)"
    done
}

# program PATH : the path's program and the modules it loads.
program() {
    case $1 in
        # what is needed to forward, and no more
        nuncio) echo "${NUNCIO%/*}/nuncio-ambassador" ;;
        haproxy) echo "$root/usr/sbin/haproxy" ;;
        nginx) echo "$root/usr/sbin/nginx" "$root/usr/lib/nginx/modules/ngx_stream_module.so" ;;
        docker-proxy) echo "$root/usr/sbin/docker-proxy" ;;
        socat) readlink -f "$root/usr/bin/socat" ;;
    esac
}
