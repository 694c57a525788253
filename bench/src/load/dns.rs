//! Queries to a name server, so many under way at once.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::PATIENCE;

/// Asked before anything is counted, so that caches are warm.
const WARM_UP: usize = 200;
/// A header, with one question (RFC 1035, section 4.1.1).
const HEADER: [u8; 10] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
/// Type A, class IN.
const QUESTION: [u8; 4] = [0, 1, 0, 1];

/// Prints the median and the 99th percentile of the time to an answer in microseconds, and answers a second.
pub(crate) fn run(to: SocketAddr, name: &str, outstanding: u16, length: Duration) -> Result<()> {
    ensure!(outstanding > 0, "no queries to have under way");
    let mut asker = Asker::new(to, name, outstanding)?;
    for _ in 0..outstanding {
        asker.ask(None)?;
    }
    for _ in 0..WARM_UP {
        let (id, _) = asker.hear()?;
        asker.ask(Some(id))?;
    }
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < length {
        let (id, time) = asker.hear()?;
        times.push(time);
        asker.ask(Some(id))?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "{:.1} {:.1} {:.0}",
        micros(at(50)),
        micros(at(99)),
        times.len() as f64 / seconds
    );
    Ok(())
}

struct Asker {
    socket: UdpSocket,
    /// What follows the id.
    query: Vec<u8>,
    /// When the query of each id was sent.
    sent: Vec<Instant>,
    fresh: u16,
}

impl Asker {
    fn new(to: SocketAddr, name: &str, outstanding: u16) -> Result<Self> {
        let socket = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        socket
            .connect(to)
            .with_context(|| format!("connect to {to}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut query = HEADER.to_vec();
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).context("a label of 63 bytes at most")?);
            query.extend(label.as_bytes());
        }
        query.push(0);
        query.extend(QUESTION);
        Ok(Self {
            socket,
            query,
            sent: vec![Instant::now(); outstanding.into()],
            fresh: 0,
        })
    }

    /// Asks again with an id whose answer has come, or with a fresh one.
    fn ask(&mut self, id: Option<u16>) -> Result<()> {
        let id = id.unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh - 1
        });
        let packet = [&id.to_be_bytes(), self.query.as_slice()].concat();
        self.sent[usize::from(id)] = Instant::now();
        self.socket.send(&packet).context("ask")?;
        Ok(())
    }

    /// The next answer's id, and how long it took. It must have an address.
    fn hear(&mut self) -> Result<(u16, Duration)> {
        let mut answer = [0; 512];
        let length = self.socket.recv(&mut answer).context("no answer came")?;
        let now = Instant::now();
        ensure!(length > 12 && answer[7] > 0, "an answer without an address");
        let id = u16::from_be_bytes([answer[0], answer[1]]);
        let sent = self.sent.get(usize::from(id)).context("an id not asked")?;
        Ok((id, now - *sent))
    }
}
