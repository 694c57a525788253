//! Finds the program to execute, seen from inside the container by the user who will run it.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

/// Docker's `PATH` for an image that sets none.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program cannot be executed, in the words from which Docker's clients derive the exit code: 127 for
/// "not found" and "no such file or directory", 126 for "permission denied" and "is a directory".
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecutableError {
    #[error("exec: no command specified")]
    Empty,
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    #[error("exec: {0:?}: stat {0}: no such file or directory")]
    Missing(String),
    #[error("exec: {0:?}: is a directory")]
    Directory(String),
    #[error("exec: {0:?}: permission denied")]
    Denied(String),
}

/// The path of `program`: itself if it has a slash, else the first executable file of that name in `path`.
pub(crate) fn find(program: &str, path: &str) -> Result<PathBuf, ExecutableError> {
    if program.is_empty() {
        return Err(ExecutableError::Empty);
    }
    if program.contains('/') {
        return check(Path::new(program))
            .map(|()| program.into())
            .map_err(|wrong| wrong(program.into()));
    }
    path.split(':')
        .map(|directory| {
            Path::new(if directory.is_empty() { "." } else { directory }).join(program)
        })
        .find(|candidate| check(candidate).is_ok())
        .ok_or_else(|| ExecutableError::NotInPath(program.into()))
}

fn check(path: &Path) -> Result<(), fn(String) -> ExecutableError> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(ExecutableError::Directory),
        Ok(_) => rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::empty())
            .map_err(|_| ExecutableError::Denied as fn(_) -> _),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(ExecutableError::Denied)
        }
        Err(_) => Err(ExecutableError::Missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(program: &str) -> String {
        find(program, "/usr/bin:/bin")
            .expect_err("cannot be executed")
            .to_string()
    }

    #[test]
    fn the_words_docker_knows() {
        assert_eq!(
            message("no-such-program"),
            "exec: \"no-such-program\": executable file not found in $PATH"
        );
        assert_eq!(
            message("/no/such"),
            "exec: \"/no/such\": stat /no/such: no such file or directory"
        );
        assert_eq!(message("/etc"), "exec: \"/etc\": is a directory");
        assert_eq!(
            message("/etc/passwd"),
            "exec: \"/etc/passwd\": permission denied"
        );
        assert_eq!(message(""), "exec: no command specified");
        assert!(find("sh", "/nowhere:/bin").is_ok());
    }
}
