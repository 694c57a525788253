//! Requests on and on, of which none is to fail.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::PATIENCE;

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);
/// Commands that a client of redis sends over one connection.
const COMMANDS: u32 = 100;
/// Failures that are told one by one.
const TOLD: u64 = 50;

/// Whom to ask, as `HOST:PORT`.
pub(crate) struct Load {
    /// Each request is a connection of its own.
    pub(crate) http: Vec<String>,
    /// A connection carries some commands.
    pub(crate) redis: Vec<String>,
    /// Clients of each.
    pub(crate) clients: usize,
}

#[derive(Default)]
struct Counts {
    answered: u64,
    failed: u64,
    longest: Duration,
}

/// Asks until its input ends: requests that were answered, that failed, and the longest answer in milliseconds.
pub(crate) fn run(load: &Load) -> Result<()> {
    if load.http.is_empty() && load.redis.is_empty() {
        bail!("nobody to ask: give --http or --redis");
    }
    let (over, counts) = (AtomicBool::new(false), Mutex::new(Counts::default()));
    thread::scope(|scope| {
        for to in &load.http {
            for _ in 0..load.clients {
                scope.spawn(|| on_and_on(&over, &counts, to, |to, note| note(http(to))));
            }
        }
        for to in &load.redis {
            for _ in 0..load.clients {
                scope.spawn(|| on_and_on(&over, &counts, to, |to, note| redis(to, &over, note)));
            }
        }
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        over.store(true, Ordering::Relaxed);
    });
    let counts = counts.into_inner().expect("no client panics");
    println!(
        "{} {} {}",
        counts.answered,
        counts.failed,
        counts.longest.as_millis()
    );
    Ok(())
}

/// `ask` notes each of its requests.
fn on_and_on(
    over: &AtomicBool,
    counts: &Mutex<Counts>,
    to: &str,
    mut ask: impl FnMut(&str, &mut dyn FnMut(std::io::Result<()>)),
) {
    while !over.load(Ordering::Relaxed) {
        let mut begun = Instant::now();
        ask(to, &mut |asked| {
            let took = begun.elapsed();
            let mut counts = counts.lock().expect("no client panics");
            counts.longest = counts.longest.max(took);
            match asked {
                Ok(()) => counts.answered += 1,
                Err(error) => {
                    counts.failed += 1;
                    if counts.failed <= TOLD {
                        eprintln!("{} {to} after {took:?}: {error}", Timestamp::now());
                    }
                }
            }
            drop(counts);
            thread::sleep(PAUSE);
            begun = Instant::now();
        });
    }
}

fn connect(to: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn http(to: &str) -> std::io::Result<()> {
    let mut stream = connect(to)?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match text.starts_with("HTTP/1.") && text.contains(" 200 ") && !body.is_empty() {
        true => Ok(()),
        false => Err(strange(&answer)),
    }
}

fn redis(to: &str, over: &AtomicBool, note: &mut dyn FnMut(std::io::Result<()>)) {
    let mut stream = match connect(to) {
        Ok(stream) => BufReader::new(stream),
        Err(error) => return note(Err(error)),
    };
    for _ in 0..COMMANDS {
        let asked = set(&mut stream);
        let is_over = asked.is_err() || over.load(Ordering::Relaxed);
        note(asked);
        if is_over {
            return;
        }
    }
}

fn set(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    stream.get_mut().write_all(b"SET asked 1\r\n")?;
    let mut answer = Vec::new();
    stream.read_until(b'\n', &mut answer)?;
    match answer.as_slice() {
        b"+OK\r\n" => Ok(()),
        _ => Err(strange(&answer)),
    }
}

fn strange(answer: &[u8]) -> std::io::Error {
    let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
    std::io::Error::new(ErrorKind::InvalidData, format!("it answered {shown:?}"))
}
