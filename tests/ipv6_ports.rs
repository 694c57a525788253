//! Ports that are published over IPv6, of containers with and without it.

mod support;

use support::{Client, Host, Image, cluster, wait_until};

/// Runs a shell command in the network of a host, in the container `eye`.
fn inside(host: &Host, command: &str) -> String {
    host.nuncio(["exec", "eye", "sh", "-c", command]).stdout
}

/// What is sent back over TCP by whom a client on `host` reaches there.
fn read(host: &Host, target: &str) -> String {
    let command = format!("socat -u TCP:{target},connect-timeout=2 - </dev/null");
    inside(host, &command)
}

#[test]
fn published_ports_are_had_over_both_families() {
    let [a, outside] = cluster(&[Image::Busybox]);
    let (own, theirs) = (a.use_v6(), outside.use_v6());
    a.ok("network create --ipv6 dual");
    for host in [&a, &outside] {
        host.ok("run -d --name eye --network host busybox sleep 1000");
    }
    let udp = format!("[{own}]:8082:7001/udp");
    let serve = "socat UDP6-RECVFROM:7001,ipv6only=0,fork SYSTEM:'echo udp' & socat TCP6-LISTEN:7000,ipv6only=0,reuseaddr,fork SYSTEM:'echo $SOCAT_PEERADDR'";
    for client in Client::ALL {
        // One has an address of IPv6, the other is reached by way of the ambassador.
        for (network, kept) in [("dual", true), ("bridge", false)] {
            let mut words = vec!["run", "-d", "--name", "web", "--network", network];
            words.extend(["-p", "8080:7000", "-p", "[::1]:8081:7000", "-p", &udp]);
            words.extend(["busybox", "sh", "-c", serve]);
            client.ok(&a, &*words);
            let mut seen = String::new();
            wait_until("it answers over IPv6", || {
                seen = read(&outside, &format!("[{own}]:8080"));
                !seen.is_empty()
            });
            let peer = seen.trim().trim_matches(['[', ']']).parse();
            assert_eq!(peer == Ok(theirs), kept, "{network}: {seen}");
            for place in ["[::1]:8080", "127.0.0.1:8080", "[::1]:8081"] {
                wait_until(place, || !read(&a, place).is_empty());
            }
            assert_eq!(read(&a, "127.0.0.1:8081"), "", "[::1] alone");
            assert_eq!(read(&outside, &format!("[{own}]:8081")), "");
            assert!(!read(&outside, &format!("{}:8080", a.address)).is_empty());
            let ask = format!("echo ask | socat -t 2 - UDP6:[{own}]:8082");
            wait_until("UDP answers", || inside(&outside, &ask) == "udp\n");

            let ports = client.ok(&a, "port web");
            for place in ["0.0.0.0:8080", "[::]:8080", "[::1]:8081"] {
                let line = format!("7000/tcp -> {place}");
                assert!(ports.lines().any(|found| found == line), "{ports}");
            }
            let format = "{{json .NetworkSettings.Ports}}";
            let shown = client.ok(&a, ["inspect", "-f", format, "web"]);
            assert!(
                shown.contains(r#"{"HostIp":"::","HostPort":"8080"}"#),
                "{shown}"
            );
            let shown = client.ok(&a, "ps");
            assert!(
                shown.contains("::1]:8081->7000/tcp") || shown.contains("::1:8081->7000/tcp"),
                "{shown}"
            );
            for taken in [
                "[::]:8080:80",
                "[::1]:8080:80",
                "0.0.0.0:8080:80",
                "[::]:8081:80",
            ] {
                let words = ["run", "--rm", "-p", taken, "busybox", "true"];
                let refused = client.run(&a, &words[..]).refused(125);
                assert!(
                    refused.contains("port is already allocated"),
                    "{taken}: {refused}"
                );
            }
            // The other family's port is free.
            client.ok(
                &a,
                "run -d --name v4 -p 127.0.0.1:8081:80 busybox sleep 1000",
            );
            a.ok("rm -f web v4");
        }
        // Of one family alone, each to its own container.
        for (name, at) in [("four", "0.0.0.0:8090:7000"), ("six", "[::]:8090:7000")] {
            let echo = format!("socat TCP4-LISTEN:7000,reuseaddr,fork SYSTEM:'echo {name}'");
            client.ok(
                &a,
                [
                    "run", "-d", "--name", name, "-p", at, "busybox", "sh", "-c", &echo,
                ],
            );
        }
        for (name, at) in [("four", "127.0.0.1:8090"), ("six", "[::1]:8090")] {
            wait_until(name, || read(&a, at).trim() == name);
        }
        a.ok("rm -f four six");
    }
}
