//! One event loop per core: whatever a worker accepts stays on its thread.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tracing::error;

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
                // The runtime is bound to the thread, so it is made here.
                match prepare() {
                    Ok((runtime, reactor)) => {
                        let _ = started.send(Ok(()));
                        runtime.block_on(work(inbox, reactor));
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

fn prepare() -> io::Result<(LocalRuntime, Rc<Reactor>)> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(LocalOptions::default())?;
    Ok((runtime, Reactor::new()?))
}

/// Works until no more orders can come.
async fn work(mut orders: mpsc::UnboundedReceiver<Order>, reactor: Rc<Reactor>) {
    let taking = async {
        while let Some(order) = orders.recv().await {
            let reactor = reactor.clone();
            spawn_local(async move {
                serve(order.listener, &order.running, &reactor).await;
                drop(order.open);
            });
        }
    };
    tokio::select! {
        () = taking => {}
        Err(error) = reactor.drive() => error!(%error, "a worker cannot wait for its sockets"),
    }
}
