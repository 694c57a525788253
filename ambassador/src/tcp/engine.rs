//! One event loop per core: whatever a worker accepts stays on its thread.

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::bell::Bell;
use super::listener::serve;
use super::reactor::Reactor;
use crate::running::Running;

/// Threads that accept and relay. Dropping it ends all their flows and listeners.
#[derive(Debug)]
pub(crate) struct Engine {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    /// Taken in drop, which ends the thread.
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

struct Order {
    listener: TcpListener,
    running: Arc<Running>,
    /// Dropped when the listener is closed.
    open: oneshot::Sender<()>,
}

/// Resolves once a listener that was started is closed.
#[derive(Debug)]
pub(crate) struct Closed(Vec<oneshot::Receiver<()>>);

impl Closed {
    pub(crate) async fn wait(self) {
        for socket in self.0 {
            // Nothing is ever sent: the sender's end is the message.
            let _ = socket.await;
        }
    }
}

impl Engine {
    /// # Errors
    ///
    /// Too few descriptors or threads.
    pub(crate) fn start(workers: usize) -> io::Result<Self> {
        let workers = (0..workers.max(1)).map(Worker::start);
        Ok(Self {
            workers: workers.collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Accepts on `listeners`, which share a port, each on one worker, until `running` is closed.
    pub(crate) fn serve(&self, listeners: Vec<TcpListener>, running: &Arc<Running>) -> Closed {
        let mut closed = Vec::with_capacity(listeners.len());
        for (worker, listener) in self.workers.iter().cycle().zip(listeners) {
            let (open, ends) = oneshot::channel();
            let running = running.clone();
            let order = Order {
                listener,
                running,
                open,
            };
            // Bounded by the number of listeners. A worker ends only with the engine.
            if let Some(orders) = &worker.orders {
                let _ = orders.send(order);
            }
            closed.push(ends);
        }
        Closed(closed)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.orders = None;
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // It has told of its panic already.
                let _ = thread.join();
            }
        }
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (started, starts) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("tcp-{number}"))
            .spawn(move || {
                // The reactor is bound to the thread, so it is made here.
                match prepare() {
                    Ok((reactor, bell)) => {
                        let _ = started.send(Ok(()));
                        if let Err(error) = work(inbox, &reactor, &bell) {
                            error!(%error, "a worker cannot wait for its sockets");
                        }
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })?;
        starts
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }
}

fn prepare() -> io::Result<(Rc<Reactor>, Arc<Bell>)> {
    let (reactor, bell) = (Reactor::new()?, Bell::new()?);
    reactor.hear(&bell)?;
    Ok((reactor, bell))
}

/// Works until no more orders can come. No runtime: of what one has, tasks and alarms are needed, and
/// its own wait for events would double the calls of each turn.
fn work(
    orders: mpsc::UnboundedReceiver<Order>,
    reactor: &Rc<Reactor>,
    bell: &Arc<Bell>,
) -> io::Result<()> {
    reactor.clock().install();
    let over = Rc::new(Cell::new(false));
    reactor.spawn(take(orders, reactor.clone(), over.clone()));
    let waker = Waker::from(bell.clone());
    let mut cx = Context::from_waker(&waker);
    let mut tasks = FuturesUnordered::new();
    loop {
        // Pending as well when all have had a turn, and some are ready for another.
        loop {
            tasks.extend(reactor.born());
            if !matches!(tasks.poll_next_unpin(&mut cx), Poll::Ready(Some(()))) {
                break;
            }
        }
        if over.get() {
            return Ok(());
        }
        if reactor.is_barren() {
            reactor.turn(bell)?;
        }
    }
}

async fn take(
    mut orders: mpsc::UnboundedReceiver<Order>,
    reactor: Rc<Reactor>,
    over: Rc<Cell<bool>>,
) {
    while let Some(order) = orders.recv().await {
        reactor.spawn({
            let reactor = reactor.clone();
            async move {
                serve(order.listener, &order.running, &reactor).await;
                drop(order.open);
            }
        });
    }
    over.set(true);
}
