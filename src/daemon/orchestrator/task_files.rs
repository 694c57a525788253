//! Secrets and configs in a task's container: files on a file system in memory, which is there as long as it runs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bollard_stubs::models::ServiceSpec;
use nuncio_registry::{Catalog, Needs};
use nuncio_runtime::{BindOptions, Mount, MountKind};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::time::timeout;

use super::secrets::{FileKind, HANDED_ON, Unread};
use crate::daemon::Daemon;
use crate::daemon::config::TaskFile;
use crate::daemon::refusal::Refusal;
use crate::daemon::sealed::SealError;

/// Where secrets are, unless their target is absolute.
const SECRETS: &str = "/run/secrets";
/// Room beside the contents: a page that is begun, and what describes a file.
const PER_FILE: usize = 8192;

/// The secrets and configs that a service's tasks are given.
pub(super) fn of(spec: &ServiceSpec) -> Result<Vec<TaskFile>, Refusal> {
    let task = spec.task_template.clone().unwrap_or_default();
    let container = task.container_spec.unwrap_or_default();
    let mut files = Vec::new();
    for secret in container.secrets.into_iter().flatten() {
        let at = secret.file.ok_or_else(|| malformed("secret"))?;
        files.push(TaskFile {
            kind: FileKind::Secret,
            target: target(FileKind::Secret, at.name)?,
            uid: number("secret", "UID", at.uid)?,
            gid: number("secret", "GID", at.gid)?,
            mode: at.mode.unwrap_or(0o444),
            id: secret.secret_id.unwrap_or_default(),
            name: secret.secret_name.unwrap_or_default(),
        });
    }
    for config in container.configs.into_iter().flatten() {
        if config.runtime.is_some() {
            return Err(Refusal::unsupported(
                "not built: configs that are credential specs",
            ));
        }
        let at = config.file.ok_or_else(|| malformed("config"))?;
        files.push(TaskFile {
            kind: FileKind::Config,
            target: target(FileKind::Config, at.name)?,
            uid: number("config", "UID", at.uid)?,
            gid: number("config", "GID", at.gid)?,
            mode: at.mode.unwrap_or(0o444),
            id: config.config_id.unwrap_or_default(),
            name: config.config_name.unwrap_or_default(),
        });
    }
    match files
        .iter()
        .find(|file| file.id.is_empty() || file.name.is_empty())
    {
        Some(file) => Err(malformed(file.kind.word())),
        None => Ok(files),
    }
}

/// What has to be there for a service's tasks to be given them.
pub(super) fn needs(spec: &ServiceSpec) -> Result<Needs, Refusal> {
    let files = of(spec)?.into_iter();
    Ok(files.map(|file| (file.kind.desired(), file.id)).collect())
}

fn malformed(word: &str) -> Refusal {
    Refusal::invalid(format!(
        "rpc error: code = InvalidArgument desc = malformed {word} reference: expected its id, its name and a file"
    ))
}

fn number(word: &str, what: &str, given: Option<String>) -> Result<u32, Refusal> {
    let given = given.unwrap_or_default();
    match given.as_str() {
        "" => Ok(0),
        given => given.parse().map_err(|_| {
            Refusal::invalid(format!(
                "invalid {word} file {what} {given:?}: expected a number"
            ))
        }),
    }
}

/// The absolute path in the container.
fn target(kind: FileKind, name: Option<String>) -> Result<String, Refusal> {
    let name = name.unwrap_or_default();
    let whole = match (name.starts_with('/'), kind) {
        (true, _) => name.clone(),
        (false, FileKind::Secret) => format!("{SECRETS}/{name}"),
        (false, FileKind::Config) => format!("/{name}"),
    };
    let steps = whole
        .split('/')
        .filter(|step| !step.is_empty() && *step != ".");
    let steps: Vec<&str> = steps.collect();
    let leads_nowhere = steps.is_empty() || steps.contains(&"..") || whole.contains('\0');
    if name.is_empty() || name.ends_with('/') || leads_nowhere {
        return Err(Refusal::invalid(format!(
            "rpc error: code = InvalidArgument desc = malformed {} reference, invalid target file name {name:?} provided",
            kind.word()
        )));
    }
    Ok(format!("/{}", steps.join("/")))
}

impl Daemon {
    /// Waits until this host can read what a task is given, for a bounded time.
    pub(super) async fn await_files(&self, files: &[TaskFile]) -> anyhow::Result<()> {
        let mut catalog = self.catalog_changes.clone();
        let wanting = |catalog: &Catalog| {
            files.iter().find_map(|file| {
                let error = self.file_content(catalog, file.kind, &file.id).err()?;
                Some((file, error))
            })
        };
        let there = catalog.wait_for(|catalog| {
            !matches!(
                wanting(catalog),
                Some((_, Unread::Gone | Unread::Sealed(SealError::NotForThis)))
            )
        });
        let _ = timeout(HANDED_ON, there).await; // what is still wanting is told
        match wanting(&self.catalog()) {
            None => Ok(()),
            Some((file, error)) => Err(anyhow::Error::new(error).context(format!(
                "{} {}",
                file.kind.word(),
                file.name
            ))),
        }
    }

    /// Lays what a container is given on a file system in memory; what it is to mount.
    pub(in crate::daemon) async fn mount_task_files(
        &self,
        container: &str,
        files: &[TaskFile],
    ) -> anyhow::Result<Vec<Mount>> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let mut contents = Vec::new();
        let catalog = self.catalog();
        for file in files {
            let content = self.file_content(&catalog, file.kind, &file.id);
            contents.push(content.with_context(|| format!("{} {}", file.kind.word(), file.name))?);
        }
        let directory = self.files_directory(container);
        let (files, to) = (files.to_vec(), directory.clone());
        let laying = tokio::task::spawn_blocking(move || {
            let room = contents
                .iter()
                .map(|content| content.len() + PER_FILE)
                .sum();
            mount_memory(&to, room)?;
            for (number, (file, content)) in files.iter().zip(&contents).enumerate() {
                lay(&to.join(number.to_string()), file, content)?;
            }
            Ok::<_, io::Error>(files)
        });
        let laid = laying.await?;
        let files = laid.with_context(|| format!("lay files in {}", directory.display()))?;
        let mounts = files.into_iter().enumerate().map(|(number, file)| Mount {
            kind: MountKind::Bind {
                source: directory.join(number.to_string()),
                options: BindOptions::default(),
            },
            target: file.target,
            read_only: true,
        });
        Ok(mounts.collect())
    }

    /// Takes away what was laid for a container; one for which nothing was is no error.
    pub(in crate::daemon) fn unmount_task_files(&self, container: &str) -> anyhow::Result<()> {
        Ok(take_away(&self.files_directory(container))?)
    }

    /// Takes away what was laid for containers that are not there any more.
    pub(in crate::daemon) fn release_task_files(
        &self,
        is_known: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        for entry in fs::read_dir(self.options.exec_root.join("files"))? {
            let entry = entry?;
            if !is_known(&entry.file_name().to_string_lossy()) {
                take_away(&entry.path())?;
            }
        }
        Ok(())
    }

    fn files_directory(&self, container: &str) -> PathBuf {
        self.options.exec_root.join("files").join(container)
    }
}

/// Mounts memory that is never swapped out, where the kernel can promise that (from 6.4 on), for root alone.
fn mount_memory(directory: &Path, bytes: usize) -> io::Result<()> {
    take_away(directory)?;
    fs::create_dir(directory)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let with = |more: &str| {
        let options = std::ffi::CString::new(format!("mode=0700,size={bytes}{more}"))?;
        Ok::<_, io::Error>(mount(
            "files",
            directory,
            "tmpfs",
            flags,
            options.as_c_str(),
        ))
    };
    match with(",noswap")? {
        Err(Errno::INVAL) => Ok(with("")??),
        mounted => Ok(mounted?),
    }
}

fn lay(path: &Path, file: &TaskFile, content: &[u8]) -> io::Result<()> {
    let mut made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    made.write_all(content)?;
    fchown(&made, Some(file.uid), Some(file.gid))?;
    // Last: an owner takes away bits.
    made.set_permissions(fs::Permissions::from_mode(file.mode & 0o7777))
}

fn take_away(directory: &Path) -> io::Result<()> {
    match unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::daemon::orchestrator::spec;

    fn files(container: serde_json::Value) -> Result<Vec<TaskFile>, Refusal> {
        let spec = json!({ "Name": "web", "TaskTemplate": { "ContainerSpec": container } });
        of(&spec::parse(&spec).expect("a specification"))
    }

    #[test]
    fn secrets_and_configs_have_their_places() {
        let found = files(json!({
            "Secrets": [
                {"SecretID": "s1", "SecretName": "one", "File": {"Name": "one", "UID": "0", "GID": "0", "Mode": 292}},
                {"SecretID": "s2", "SecretName": "two", "File": {"Name": "/etc//./two", "UID": "5", "GID": "6", "Mode": 256}},
            ],
            "Configs": [{"ConfigID": "c1", "ConfigName": "conf", "File": {"Name": "conf"}}],
        }));
        let found = found.expect("files");
        let seen: Vec<_> = found
            .iter()
            .map(|file| {
                (
                    file.id.as_str(),
                    file.target.as_str(),
                    file.uid,
                    file.gid,
                    file.mode,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("s1", "/run/secrets/one", 0, 0, 0o444),
                ("s2", "/etc/two", 5, 6, 0o400),
                ("c1", "/conf", 0, 0, 0o444),
            ]
        );
    }

    #[test]
    fn references_that_mean_nothing_are_refused() {
        let secret = |name: &str, uid: &str| json!({"Secrets": [{"SecretID": "s", "SecretName": "s", "File": {"Name": name, "UID": uid}}]});
        for (container, message) in [
            (
                json!({"Secrets": [{"SecretID": "s", "SecretName": "s"}]}),
                "malformed secret reference",
            ),
            (
                json!({"Configs": [{"ConfigName": "c", "File": {"Name": "c"}}]}),
                "malformed config reference",
            ),
            (secret("", "0"), "invalid target file name"),
            (secret("/", "0"), "invalid target file name"),
            (secret("../shadow", "0"), "invalid target file name"),
            (secret("a", "root"), "invalid secret file UID \"root\""),
        ] {
            let refusal = files(container).expect_err(message);
            assert!(refusal.message.contains(message), "{}", refusal.message);
        }
    }
}
