//! What happens in the container between libcontainer's hand-over and execve(2).

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use rustix::fs::Mode;

use crate::executable::{self, DEFAULT_PATH};
use crate::plan::{Payload, Role};
use crate::protocol::Fault;
use crate::seccomp;
use crate::sys::{self, Instruction};

/// Does what libcontainer omits: it forgets seccomp for an exec, and its seccomp takes 15 ms to compile. So the
/// filter and, since installing it needs `CAP_SYS_ADMIN`, the capabilities are left out of its configuration.
#[derive(Clone)]
pub(super) struct Launcher {
    payload: Rc<Payload>,
    filter: Option<Rc<[Instruction]>>,
    /// Whether a missing working directory is made, which Docker does for the first process only.
    makes_cwd: bool,
    /// Where to write a [`Fault`]; execve(2) closes it, which says that all went well.
    report: Rc<File>,
}

impl Launcher {
    pub(super) fn new(payload: Payload, role: &Role, report: OwnedFd) -> Self {
        let filter = payload.filter_for.map(|caps| seccomp::compile(caps).into());
        Self {
            payload: Rc::new(payload),
            filter,
            makes_cwd: *role == Role::Init,
            report: Rc::new(report.into()),
        }
    }

    /// As the user already, still with every capability, all mounts made.
    fn check(&self) -> Result<(), Fault> {
        fs::write(
            "/proc/self/oom_score_adj",
            self.payload.oom_score_adj.to_string(),
        )
        .map_err(|error| {
            Fault::internal(format!(
                "set oom_score_adj to {}: {error}",
                self.payload.oom_score_adj
            ))
        })?;
        rustix::process::umask(Mode::WGRP | Mode::WOTH);
        own_stdio().map_err(|error| {
            Fault::internal(format!("give standard streams to the user: {error}"))
        })?;
        self.enter_cwd().map_err(|error| {
            let cwd = self.payload.cwd.display();
            Fault::executable(format!("chdir to cwd ({cwd:?}): {}", lower_case(&error)))
        })?;
        self.program().map(|_| ()).map_err(Fault::executable)?;
        if self.payload.reaper {
            let program = self
                .payload
                .args
                .first()
                .map(String::as_str)
                .unwrap_or_default();
            executable::find(program, self.path()).map_err(Fault::executable)?;
        }
        Ok(())
    }

    fn enter_cwd(&self) -> io::Result<()> {
        let cwd = &self.payload.cwd;
        match rustix::process::chdir(cwd) {
            Err(rustix::io::Errno::NOENT) if self.makes_cwd => {
                fs::create_dir_all(cwd)?;
                rustix::process::chdir(cwd)?;
            }
            other => other?,
        }
        // glibc fails if the directory is not below the root, as /proc/self/fd/N of the host's would be (CVE-2024-21626)
        std::env::current_dir().map(|_| ())
    }

    fn path(&self) -> &str {
        self.payload
            .env
            .iter()
            .find_map(|entry| entry.strip_prefix("PATH="))
            .unwrap_or(DEFAULT_PATH)
    }

    fn program(&self) -> Result<PathBuf, executable::ExecutableError> {
        let command = self.payload.command();
        executable::find(
            command.first().map(String::as_str).unwrap_or_default(),
            self.path(),
        )
    }

    /// Returns only if it fails.
    fn launch(&self) -> Fault {
        let attempt = || -> Result<std::convert::Infallible, Fault> {
            let program = self.program().map_err(Fault::executable)?;
            let strings = |texts: &[String]| {
                texts
                    .iter()
                    .map(|text| c_string(text))
                    .collect::<io::Result<Vec<CString>>>()
            };
            let invalid = |error: io::Error| Fault::executable(format!("exec: {error}"));
            let args = strings(&self.payload.command()).map_err(invalid)?;
            let env = strings(&self.payload.env).map_err(invalid)?;
            let path = c_string(&program.to_string_lossy()).map_err(invalid)?;
            let failed = |what: &'static str| {
                move |error: io::Error| Fault::internal(format!("{what}: {error}"))
            };
            sys::reset_signals().map_err(failed("reset signals"))?;
            self.payload
                .capabilities
                .bound()
                .map_err(failed("narrow the capability bounding set"))?;
            if let Some(filter) = &self.filter {
                sys::install_filter(filter).map_err(failed("install the seccomp filter"))?;
            }
            self.payload
                .capabilities
                .hold()
                .map_err(failed("drop capabilities"))?;
            nix::unistd::execve(&path, &args, &env).map_err(|errno| {
                Fault::executable(format!(
                    "exec {}: {}",
                    program.display(),
                    errno.desc().to_lowercase()
                ))
            })
        };
        match attempt() {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    fn tell(&self, fault: &Fault) {
        let line = serde_json::to_vec(fault).expect("text always encodes");
        let _ = (&*self.report).write_all(&line); // the shim is gone
    }
}

impl Executor for Launcher {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        self.check().map_err(|fault| {
            self.tell(&fault);
            ExecutorValidationError::ArgValidationError(fault.message)
        })
    }

    /// The environment goes to execve(2) as it is.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let fault = self.launch();
        self.tell(&fault);
        Err(ExecutorError::Other(fault.message))
    }
}

/// Lets a user other than root reopen its pipes and terminal by `/dev/stdout` and the like.
fn own_stdio() -> io::Result<()> {
    let uid = rustix::process::geteuid();
    for fd in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let found = rustix::fs::fstat(fd)?;
        let is_null = rustix::fs::major(found.st_rdev) == 1;
        if found.st_uid != uid.as_raw() && !is_null {
            rustix::fs::fchown(fd, Some(uid), None)?;
        }
    }
    Ok(())
}

/// Go's words, which Docker's clients look for: "no such file or directory".
fn lower_case(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{text:?} has a zero byte"),
        )
    })
}
