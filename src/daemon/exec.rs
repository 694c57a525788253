//! Further processes in a container that runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nuncio_runtime::{Attach, AttachOptions, ExecSpec, Shim};
use tokio::sync::watch;
use tokio::time::timeout;

use super::container::{Container, locked};
use super::refusal::Refusal;
use super::{Daemon, outfit, start};

/// Ended execs that are remembered for `inspect`; the oldest are forgotten beyond it.
const REMEMBERED: usize = 1024;

/// What a terminal's processes get when its other end is gone.
const HANGUP: i32 = nix::sys::signal::Signal::SIGHUP as i32;

/// How long after the end of its output an exec's exit code is waited for, and its start by who resizes its terminal.
const LINGER: Duration = Duration::from_secs(5);

/// What `exec` asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExecConfig {
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) user: String,
    pub(crate) tty: bool,
    pub(crate) attach_stdin: bool,
    pub(crate) attach_stdout: bool,
    pub(crate) attach_stderr: bool,
    pub(crate) privileged: bool,
    pub(crate) detach_keys: String,
}

/// A process to be run, that runs, or that has run in a container.
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) config: ExecConfig,
    container: Arc<Container>,
    run_directory: PathBuf,
    state: watch::Sender<State>,
}

enum State {
    Created,
    /// With the process's id on the host, if that is known.
    Running(Arc<Shim>, Option<u32>),
    Ended(i32),
}

/// An exec as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct ExecView {
    pub(crate) id: String,
    pub(crate) container_id: String,
    pub(crate) config: ExecConfig,
    pub(crate) running: bool,
    pub(crate) code: Option<i32>,
    pub(crate) pid: Option<u32>,
}

/// Refuses a container in which nothing further can run now.
fn check_awake(container: &Container) -> Result<(), Refusal> {
    let id = &container.id;
    if container.is_restarting() {
        let message = format!("Container {id} is restarting, wait until the container is running");
        return Err(Refusal::conflict(message));
    }
    if !container.is_running() {
        return Err(Refusal::conflict(format!("container {id} is not running")));
    }
    match container.is_paused() {
        true => Err(Refusal::conflict(format!(
            "Container {id} is paused, unpause the container before exec"
        ))),
        false => Ok(()),
    }
}

impl Exec {
    /// Takes away what it left: its shim first, which may yet be writing down how it ended.
    async fn clean_up(&self) {
        let directory = self.run_directory.clone();
        let cleaned =
            tokio::task::spawn_blocking(move || nuncio_runtime::cleanup(&directory)).await;
        if let Err(error) = cleaned.map_err(std::io::Error::other).flatten() {
            tracing::warn!(exec = self.id, %error, "remove what an exec left");
        }
    }

    pub(crate) fn view(&self) -> ExecView {
        let (running, code, pid) = match &*self.state.borrow() {
            State::Created => (false, None, None),
            State::Running(_, pid) => (true, None, *pid),
            State::Ended(code) => (false, Some(*code), None),
        };
        let (id, container_id, config) = (
            self.id.clone(),
            self.container.id.clone(),
            self.config.clone(),
        );
        ExecView {
            id,
            container_id,
            config,
            running,
            code,
            pid,
        }
    }

    /// Returns once it has ended, or after [`LINGER`]: a process may close its output long before it ends.
    pub(crate) async fn ended(&self) {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| matches!(state, State::Ended(_)));
        let _ = timeout(LINGER, ended).await; // the sender is `self`'s
    }

    fn shim(&self) -> Option<Arc<Shim>> {
        match &*self.state.borrow() {
            State::Running(shim, _) => Some(Arc::clone(shim)),
            State::Created | State::Ended(_) => None,
        }
    }
}

impl Daemon {
    pub(crate) fn exec_create(
        &self,
        container: &Arc<Container>,
        config: ExecConfig,
    ) -> anyhow::Result<String> {
        check_awake(container)?;
        if config.cmd.is_empty() {
            return Err(Refusal::invalid("No exec command specified").into());
        }
        let id = super::new_id();
        let exec = Exec {
            run_directory: self.options.exec_root.join("exec").join(&id),
            container: Arc::clone(container),
            state: watch::Sender::new(State::Created),
            id: id.clone(),
            config,
        };
        let mut execs = locked(&self.execs);
        while execs.len() >= REMEMBERED {
            let ended = execs.iter().position(|exec| exec.shim().is_none());
            let Some(ended) = ended else {
                return Err(Refusal::conflict(format!("{REMEMBERED} execs run already")).into());
            };
            execs.remove(ended);
        }
        let action = format!("exec_create: {}", exec.config.cmd.join(" "));
        execs.push_back(Arc::new(exec));
        drop(execs);
        self.tell_more(container, &action, [("execID", id.clone())]);
        Ok(id)
    }

    pub(crate) fn exec(&self, id: &str) -> anyhow::Result<Arc<Exec>> {
        let execs = locked(&self.execs);
        let found = execs.iter().find(|exec| exec.id == id).cloned();
        found.ok_or_else(|| Refusal::not_found(format!("No such exec instance: {id}")).into())
    }

    /// Runs it; the streams are connected before its first instruction. `size` is that of its terminal, in rows and
    /// columns.
    pub(crate) async fn exec_start(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        detach: bool,
        size: Option<(u16, u16)>,
    ) -> anyhow::Result<Option<Attach>> {
        if !matches!(&*exec.state.borrow(), State::Created) {
            return Err(Refusal::conflict(format!("exec {} was started already", exec.id)).into());
        }
        check_awake(&exec.container)?;
        let record = exec.container.view();
        let config = &exec.config;
        let mut env = outfit::environment(&record);
        env.extend(config.env.iter().cloned());
        let spec = ExecSpec {
            args: config.cmd.clone(),
            env,
            cwd: config.cwd.clone(),
            user: config.user.clone(),
            tty: config.tty,
            open_stdin: config.attach_stdin,
            privileged: config.privileged,
        };
        let (shim, attached) = match self.run(exec, &spec, detach, size).await {
            Ok(running) => running,
            Err(error) => {
                let code = start::exit_code_of(&format!("{error:#}"));
                exec.state.send_replace(State::Ended(code));
                exec.clean_up().await;
                return Err(start::blame(error));
            }
        };
        let (daemon, exec) = (Arc::clone(self), Arc::clone(exec));
        tokio::spawn(async move {
            let code = shim.wait().await.map_or(137, |status| status.code);
            let more = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
            daemon.tell_more(&exec.container, "exec_die", more);
            exec.state.send_replace(State::Ended(code));
            exec.clean_up().await;
        });
        Ok(attached)
    }

    async fn run(
        &self,
        exec: &Exec,
        spec: &ExecSpec,
        detach: bool,
        size: Option<(u16, u16)>,
    ) -> anyhow::Result<(Arc<Shim>, Option<Attach>)> {
        let container = &exec.container.run_directory;
        let shim = self
            .shims
            .spawn_exec(container, &exec.run_directory, spec)
            .await?;
        let shim = Arc::new(shim);
        if let Some((rows, columns)) = size {
            shim.resize(columns, rows).await?;
        }
        let pid = shim.state().await?.pid;
        let attached = match detach {
            true => None,
            false => Some(
                shim.attach(AttachOptions {
                    stdin: exec.config.attach_stdin,
                    stdout: exec.config.attach_stdout,
                    stderr: exec.config.attach_stderr,
                })
                .await?,
            ),
        };
        exec.state
            .send_replace(State::Running(Arc::clone(&shim), pid));
        let action = format!("exec_start: {}", exec.config.cmd.join(" "));
        self.tell_more(&exec.container, &action, [("execID", exec.id.clone())]);
        shim.start().await?;
        Ok((shim, attached))
    }

    /// Tells that the user left an exec running.
    pub(crate) fn exec_detached(&self, exec: &Exec) {
        let more = [("execID", exec.id.clone())];
        self.tell_more(&exec.container, "exec_detach", more);
    }

    /// Ends it as a terminal does whose other end is gone.
    pub(crate) async fn exec_hang_up(&self, exec: &Exec) {
        let Some(shim) = exec.shim() else { return };
        if let Err(error) = shim.signal_all(HANGUP).await {
            tracing::debug!(exec = exec.id, %error, "hang up");
        }
    }

    pub(crate) async fn exec_resize(&self, exec: &Arc<Exec>, w: u16, h: u16) -> anyhow::Result<()> {
        // A client that is answered before the process is there knows nothing of that.
        let mut state = exec.state.subscribe();
        let begun = state.wait_for(|state| !matches!(state, State::Created));
        let _ = timeout(LINGER, begun).await; // the sender is `exec`'s
        match exec.shim() {
            Some(shim) => Ok(shim.resize(w, h).await?),
            None => Err(Refusal::conflict(format!("exec {} is not running", exec.id)).into()),
        }
    }
}
