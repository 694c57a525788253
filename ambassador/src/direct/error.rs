//! Why connections are not rewritten.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

use super::service::{NotAService, ServiceKey};

/// What a [`Rewriter`](super::Rewriter) lacks.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// Without it no process can be told from another.
    #[error("no cgroup2 is mounted; mount it with: mount -t cgroup2 none /sys/fs/cgroup/unified")]
    NoCgroup2,
    /// The mounts cannot be read.
    #[error("read /proc/self/mountinfo, to see whether cgroup2 is mounted")]
    Mounts(#[source] io::Error),
    /// The kernel was built without it.
    #[error("this kernel has no bpf(2); it wants CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF")]
    NoBpf(#[source] io::Error),
    /// The process may not load programs.
    #[error(
        "the kernel does not let this process load eBPF programs; it wants root, or CAP_BPF and CAP_NET_ADMIN"
    )]
    Forbidden(#[source] io::Error),
    /// The kernel does not take the maps, or what the object file says.
    #[error("this kernel does not take the eBPF maps; it wants Linux 5.11 or later")]
    Object(#[source] Box<EbpfError>),
    /// The kernel does not take a program.
    #[error("this kernel does not take the eBPF program {program}; it wants Linux 5.11 or later")]
    Program {
        /// Named after where it is attached.
        program: &'static str,
        /// The kernel's answer, with the verifier's words.
        source: Box<ProgramError>,
    },
    /// There is no such cgroup.
    #[error("open the cgroup {}", .cgroup.display())]
    Cgroup {
        /// Its directory.
        cgroup: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Programs are attached to cgroups of version 2.
    #[error("{} is not a cgroup2 directory; name one below where cgroup2 is mounted", .0.display())]
    NotCgroup2(PathBuf),
    /// A program cannot be attached.
    #[error("attach the eBPF program {program} to the cgroup {}", .cgroup.display())]
    Attach {
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// Named after where it is attached.
        program: &'static str,
        /// The kernel's answer: EPERM if a program above it admits no other.
        source: Box<ProgramError>,
    },
    /// The programs cannot be told which services the cgroup sees.
    #[error("give the cgroup {} its services", .cgroup.display())]
    Scope {
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// The kernel's answer.
        source: Box<MapError>,
    },
}

/// Why a service's endpoints were not taken. Those it had stay.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// Nobody can connect to it.
    #[error("endpoint of {service}")]
    Endpoint {
        /// The service.
        service: ServiceKey,
        /// What is wrong with the address.
        source: NotAService,
    },
    /// A socket stays what it was made for.
    #[error(
        "{service} and its endpoint {endpoint} are not both IPv4 or both IPv6; leave that endpoint to a relay"
    )]
    Family {
        /// The service.
        service: ServiceKey,
        /// The endpoint of the other kind.
        endpoint: SocketAddr,
    },
    /// More than the programs search.
    #[error("{service} has {found} endpoints; at most {most} can be chosen from")]
    TooMany {
        /// The service.
        service: ServiceKey,
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// The kernel does not take the set: E2BIG if there are 65,536 services.
    #[error("hand the endpoints of {service} to the kernel")]
    Kernel {
        /// The service.
        service: ServiceKey,
        /// The kernel's answer.
        source: Box<MapError>,
    },
}

impl DirectError {
    /// Sorts what loading the maps has failed with.
    pub(super) fn object(error: EbpfError) -> Self {
        let sort = |errno| match errno {
            Some(nix::libc::ENOSYS) => Self::NoBpf,
            _ => Self::Forbidden,
        };
        match &error {
            EbpfError::MapError(MapError::CreateError { io_error, .. }) => {
                match io_error.raw_os_error() {
                    errno @ Some(nix::libc::ENOSYS | nix::libc::EPERM) => {
                        sort(errno)(copy(io_error))
                    }
                    _ => Self::Object(Box::new(error)),
                }
            }
            _ => Self::Object(Box::new(error)),
        }
    }

    pub(super) fn program(program: &'static str, error: ProgramError) -> Self {
        match &error {
            ProgramError::LoadError { io_error, .. }
                if io_error.raw_os_error() == Some(nix::libc::EPERM) =>
            {
                Self::Forbidden(copy(io_error))
            }
            _ => Self::Program {
                program,
                source: Box::new(error),
            },
        }
    }
}

/// The same error number, owned.
fn copy(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
