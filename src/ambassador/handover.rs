//! How an ambassador takes the place of the one that runs, and leaves its own to the next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nuncio_ambassador::{Ambassador, Heritage, Successors};
use tracing::warn;

use super::admin::AdminAddress;

/// Where an ambassador whose admin socket is at `admin` meets its successor.
fn door(admin: &Path) -> PathBuf {
    let mut door = admin.as_os_str().to_owned();
    door.push(".upgrade");
    door.into()
}

/// The listeners of the predecessor whose admin socket is at that path.
///
/// # Errors
///
/// It does not give them.
pub(super) async fn claim(predecessor: Option<&Path>) -> anyhow::Result<Option<Heritage>> {
    match predecessor {
        Some(admin) => Ok(Some(Heritage::claim(&door(admin)).await?)),
        None => Ok(None),
    }
}

/// Tells the predecessor that it may stop, now that its listeners are served here.
pub(super) async fn take_over(heritage: Heritage) {
    if let Err(error) = heritage.take_over().await {
        warn!(
            "the predecessor has not said that it stops: {:#}",
            anyhow::Error::from(error)
        );
    }
}

/// Those who may take the place of this process, whose admin side is there; `None` if nobody can.
pub(super) fn successors(admin: Option<&AdminAddress>) -> Option<Successors> {
    let Some(AdminAddress::Unix(admin)) = admin else {
        return None;
    };
    let bound = Successors::bind(&door(admin)).map_err(anyhow::Error::from);
    bound
        .inspect_err(|error| warn!("this process cannot be replaced while it runs: {error:#}"))
        .ok()
}

/// Returns when one of them serves.
pub(super) async fn replaced(successors: Option<&Successors>, ambassador: &Arc<Ambassador>) {
    match successors {
        Some(successors) => successors.serve(ambassador).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_is_beside_the_admin_socket() {
        let door = door(Path::new("/run/a.sock"));
        assert_eq!(door, Path::new("/run/a.sock.upgrade"));
    }
}
