//! The server of all loads.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Socket, Type};

use super::sink::Sink;
use super::{BRIEF, CONTROL, HOLD, PATIENCE, STOP_READING};

/// Threads that accept brief connections: more than cores, since each waits for its client's byte.
const BRIEF_THREADS: usize = 8;
const BACKLOG: i32 = 4096;
/// There is a thread for each flow that is held.
const STACK: usize = 64 << 10;

pub(crate) fn run(address: IpAddr) -> Result<()> {
    let (brief, hold, control) = (
        listen((address, BRIEF).into())?,
        listen((address, HOLD).into())?,
        listen((address, CONTROL).into())?,
    );
    let sink = Arc::new(Sink::bind(address)?);
    for _ in 0..BRIEF_THREADS {
        let listener = brief.try_clone()?;
        thread::spawn(move || each(&listener, |stream| drop(answer_once(stream))));
    }
    thread::spawn(move || {
        each(&hold, |stream| {
            let thread = thread::Builder::new().stack_size(STACK);
            // Without a thread the stream is dropped, and the client says so.
            drop(thread.spawn(move || self::hold(stream)));
        });
    });
    thread::spawn({
        let sink = sink.clone();
        move || {
            each(&control, |stream| {
                let sink = sink.clone();
                thread::spawn(move || tell(stream, &sink));
            });
        }
    });
    sink.run()
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let bound = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bound().with_context(|| format!("listen on tcp://{address}"))
}

fn each(listener: &TcpListener, mut serve: impl FnMut(TcpStream)) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => serve(stream),
            // A connection that was reset while it waited is none.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                eprintln!("nuncio-bench: accept: {error}");
                std::process::exit(1);
            }
        }
    }
}

/// The server closes first, so that no client's port is kept by TIME_WAIT.
fn answer_once(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)
}

fn hold(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        if byte == [STOP_READING] {
            let timeout = PATIENCE.try_into().ok();
            poll(
                &mut [PollFd::new(&stream, PollFlags::RDHUP)],
                timeout.as_ref(),
            )?;
            return Ok(());
        }
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Answers each line with what has arrived so far.
fn tell(stream: TcpStream, sink: &Sink) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        line?;
        writeln!(writer, "{}", sink.arrived())?;
    }
    Ok(())
}
