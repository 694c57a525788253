//! The terminal that the client runs in.

use std::io::{self, IsTerminal as _};
use std::sync::Mutex;
use std::sync::Once;

use rustix::stdio::{stdin, stdout};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was before it became raw; taken by whoever sets it back.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input's terminal in raw mode, until this is dropped or the process panics.
#[derive(Debug)]
pub(super) struct RawMode(());

impl RawMode {
    /// Makes the terminal raw; `None` if standard input is none.
    ///
    /// # Errors
    ///
    /// The kernel's, from `tcsetattr`.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        static HOOK: Once = Once::new();
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        // a release build aborts at a panic and drops nothing
        HOOK.call_once(|| {
            let earlier = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                earlier(panic);
            }));
        });
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        if let Ok(mut saved) = BEFORE.lock() {
            *saved = Some(before);
        }
        let guard = Self(());
        tcsetattr(stdin(), OptionalActions::Flush, &raw)?;
        Ok(Some(guard))
    }
}

/// Does `work` while the terminal does not show what is typed.
///
/// # Errors
///
/// The kernel's, from `tcsetattr`.
pub(super) fn without_echo<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let before = tcgetattr(stdin())?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin(), OptionalActions::Flush, &silent)?;
    let done = work();
    tcsetattr(stdin(), OptionalActions::Flush, &before)?;
    Ok(done)
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // `try_lock`: a panic may come while the lock is held
    if let Ok(mut saved) = BEFORE.try_lock()
        && let Some(before) = saved.take()
    {
        // the terminal may be gone, and nobody is left to tell
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

/// A terminal was asked for where the input is none.
#[derive(Debug, thiserror::Error)]
#[error("the input device is not a TTY: leave -t out, or run in a terminal")]
pub(super) struct NotATerminal;

/// Looks whether `-t` has what it asks for: where `stdin` goes to the container, that must be a terminal.
///
/// # Errors
///
/// [`NotATerminal`].
pub(super) fn check(tty: bool, stdin: bool) -> Result<(), NotATerminal> {
    if tty && stdin && !io::stdin().is_terminal() {
        return Err(NotATerminal);
    }
    Ok(())
}

/// Rows and columns of the terminal on standard output, if it is one.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
