//! Connections that carry one byte each way and end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::PATIENCE;

/// Connections at once.
const WORKERS: usize = 16;

pub(crate) fn run(to: SocketAddr, length: Duration) -> Result<()> {
    once(to)?;
    let begun = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            thread::spawn(move || -> Result<u64> {
                let mut made = 0;
                while begun.elapsed() < length {
                    once(to)?;
                    made += 1;
                }
                Ok(made)
            })
        })
        .collect();
    let mut made = 0;
    for worker in workers {
        made += worker.join().expect("a worker does not panic")?;
    }
    println!("{:.0}", made as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

fn once(to: SocketAddr) -> Result<()> {
    let carried = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"?")?;
        let mut answer = Vec::with_capacity(8);
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = carried().with_context(|| format!("a brief connection to {to}"))?;
    ensure!(answer == b"?", "{to} answered {answer:?} to one byte");
    Ok(())
}
