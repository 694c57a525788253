//! DNS in containers: what leaves it with a container and with a host, SRV records, and what resolv.conf says.

mod support;

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use support::{Client, Host, Image, cluster, single, wait_until};

/// Asks a container's name server for `web` over and over, and notes what it hears.
struct Asker {
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// When the last query was sent that was answered with an address, and when with none.
    some: Option<Instant>,
    none: Option<Instant>,
    /// Answers so far.
    count: u64,
}

impl Asker {
    #[track_caller]
    fn start(host: &Host, container: &str) -> Self {
        let id = host.ok(["inspect", "-f", "{{.Id}}", container]);
        let netns: PathBuf = host.exec_root().join("netns").join(id);
        let (heard, stop) = (Arc::<Mutex<Heard>>::default(), Arc::<AtomicBool>::default());
        let (noted, stopped) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = std::thread::spawn(move || ask_on(&netns, &noted, &stopped));
        Self {
            heard,
            stop,
            thread: Some(thread),
        }
    }

    fn heard(&self) -> Heard {
        *self.heard.lock().expect("the asker does not panic")
    }

    /// Waits for answers to queries that begin from now on.
    #[track_caller]
    fn asks_again(&self) {
        let before = self.heard().count;
        // The first may have been under way.
        wait_until("it is answered", || self.heard().count > before + 20);
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask_on(netns: &Path, heard: &Mutex<Heard>, stop: &AtomicBool) {
    let netns = File::open(netns).expect("open the container's namespace");
    setns(netns, CloneFlags::CLONE_NEWNET).expect("enter it");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.connect(("127.0.0.11", 53)).expect("connect");
    let patience = Some(Duration::from_millis(500)); // a datagram may be lost
    socket.set_read_timeout(patience).expect("a timeout");
    let mut id = 0_u16;
    while !stop.load(Ordering::Relaxed) {
        id = id.wrapping_add(1);
        let mut query = id.to_be_bytes().to_vec();
        query.extend(b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01");
        let sent = Instant::now();
        let mut answer = [0; 512];
        let Ok(length) = socket.send(&query).and_then(|_| socket.recv(&mut answer)) else {
            continue; // while another ambassador takes over, nobody listens
        };
        if length < 12 || answer[..2] != query[..2] {
            continue;
        }
        let mut heard = heard.lock().expect("the test does not panic with it");
        heard.count += 1;
        match answer[7] {
            0 => heard.none = Some(sent),
            _ => heard.some = Some(sent),
        }
        drop(heard);
        std::thread::sleep(Duration::from_micros(500)); // others want to be answered, too
    }
}

#[test]
fn a_removed_container_is_in_no_host_s_dns() {
    const ROUNDS: usize = 12;
    let [a, b, c] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    let hosts = [&a, &b, &c];
    for host in hosts {
        host.ok("run -d --name asker --network mesh busybox sleep 1000");
    }
    let askers = hosts.map(|host| Asker::start(host, "asker"));
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        let at = round % hosts.len();
        hosts[at].ok("run -d --name web --network mesh busybox sleep 1000");
        let began = Instant::now();
        for asker in &askers {
            wait_until("it is found", || {
                asker.heard().some.is_some_and(|some| some > began)
            });
        }
        let removing = Instant::now();
        hosts[at].ok("rm -f web");
        let removed = Instant::now();
        for (other, asker) in askers.iter().enumerate() {
            wait_until("it is not found any more", || {
                asker.heard().none.is_some_and(|none| none > removing)
            });
            asker.asks_again();
            let last = asker.heard().some.expect("it was found");
            if other == at {
                assert!(
                    last < removed,
                    "told {:?} after it was gone",
                    last - removed
                );
            } else {
                late.push(last.saturating_duration_since(removed));
            }
        }
    }
    late.sort();
    println!(
        "told on other hosts after it was gone: p50 {:?}, longest {:?} of {}",
        late[late.len() / 2],
        late[late.len() - 1],
        late.len()
    );
}

#[test]
fn a_dead_host_s_containers_leave_dns_and_come_back_with_it() {
    let [a, b, dies] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    for host in [&a, &b] {
        host.ok("run -d --name asker --network mesh busybox sleep 1000");
    }
    dies.ok("run -d --name web --restart always --network mesh busybox sleep 1000");
    let askers = [&a, &b].map(|host| Asker::start(host, "asker"));
    for asker in &askers {
        wait_until("it is found", || asker.heard().some.is_some());
    }
    let died = Instant::now();
    dies.crash();
    for asker in &askers {
        wait_until("its lease ends", || {
            asker.heard().none.is_some_and(|none| none > died)
        });
        asker.asks_again();
        let last = asker.heard().some.expect("it was found");
        println!(
            "told {:?} after its host died",
            last.saturating_duration_since(died)
        );
    }
    let back = Instant::now();
    dies.start_again();
    for asker in &askers {
        wait_until("it comes back", || {
            asker.heard().some.is_some_and(|some| some > back)
        });
    }
}

#[test]
fn ports_are_told_on_every_host() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    a.ok("run -d --name web --expose 80 --label nuncio.port.http=8080 --network mesh busybox sleep 1000");
    a.ok("run -d --name one --expose 6379 --label nuncio.service=db --network mesh busybox sleep 1000");
    b.ok("run -d --name client --network mesh busybox sleep 1000");
    let srv = |name: &str| {
        let asked = b.nuncio(["exec", "client", "nslookup", "-type=srv", name]);
        let lines = asked.stdout.lines();
        let found = lines.filter_map(|line| line.split_once("service = "));
        found.map(|(_, found)| found.to_owned()).collect::<Vec<_>>()
    };
    wait_until("the ports are known", || !srv("_80._tcp.web").is_empty());
    assert_eq!(srv("_80._tcp.web"), ["0 0 80 web.mesh"]);
    assert_eq!(srv("_http._tcp.web.mesh"), ["0 0 8080 web.mesh"]);
    wait_until("the service is known", || {
        srv("_6379._tcp.db") == ["0 0 6379 db.mesh"]
    });
    assert_eq!(srv("_6379._tcp.tasks.db"), ["0 0 6379 one.mesh"]);
    assert_eq!(srv("_53._tcp.web"), [""; 0]);
    for client in Client::ALL {
        let create = "create --label nuncio.port.http=no busybox true";
        let refused = client.run(&b, create).refused(1);
        assert!(
            refused.contains("label nuncio.port.http: invalid containerPort: no"),
            "{refused}"
        );
    }
}

#[test]
fn resolv_conf_says_what_was_asked_for() {
    let host = single(&[Image::Busybox]);
    host.ok("network create mesh");
    let flags = "--dns 192.0.2.7 --dns-search a.test --dns-search b.test --dns-opt timeout:1";
    for client in Client::ALL {
        let shown = |flags: &str| {
            let words = format!("run --rm {flags} busybox cat /etc/resolv.conf");
            client.ok(&host, &words)
        };
        assert_eq!(
            shown(flags),
            "nameserver 192.0.2.7\nsearch a.test b.test\noptions timeout:1"
        );
        assert_eq!(
            shown(&format!("--network mesh {flags}")),
            "nameserver 127.0.0.11\nsearch a.test b.test\noptions timeout:1 ndots:0"
        );
        assert_eq!(
            shown("--network mesh --dns-search . --dns-opt ndots:3"),
            "nameserver 127.0.0.11\noptions ndots:3"
        );
    }
}

/// The name server of the network asks those that the container names, rather than the host's.
#[test]
fn dns_flags_hold_behind_the_name_server_too() {
    let host = single(&[Image::Busybox]);
    host.ok("network create mesh");
    let address = host.address.to_string();
    let listen = format!("UDP4-RECV:53,bind={address} OPEN:/queries,creat,append");
    host.ok(&format!(
        "run -d --name server --network host busybox socat -u {listen}"
    ));
    wait_until("it listens", || {
        let listening = host.nuncio("exec server netstat -lnu").stdout;
        listening.contains(&format!("{address}:53"))
    });
    let words = format!("run --rm --network mesh --dns {address} busybox nslookup own.test");
    let asked = host.spawn(&words);
    wait_until("it is asked", || {
        let queries = host.nuncio("exec server cat /queries").stdout;
        queries.contains("\x03own\x04test")
    });
    assert_ne!(asked.finish().code, 0, "nobody answers");
}
