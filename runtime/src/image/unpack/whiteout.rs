//! Names that remove others from the layers beneath, as archives have them and as overlayfs does.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use super::error::{UnpackError, failed};
use super::path::{EntryPath, PathProblem};
use super::{Unpacker, tree};

/// What begins a name that removes another from the layers beneath.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// The name that removes all a directory has in the layers beneath.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What begins the names that AUFS kept for itself.
const AUFS: &[u8] = b".wh..wh.";
impl Unpacker<'_> {
    pub(super) fn whiteout(
        &mut self,
        path: &EntryPath,
        above: &EntryPath,
        name: &OsStr,
    ) -> Result<(), UnpackError> {
        let hidden = &name.as_bytes()[WHITEOUT.len()..];
        if name.as_bytes() != OPAQUE && name.as_bytes().starts_with(AUFS) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Refused {
                path: path.to_string(),
                problem: PathProblem::Whiteout,
            });
        }
        let parent = self.parent(path, above)?;
        let hide = || -> io::Result<()> {
            if name.as_bytes() == OPAQUE {
                return tree::make_opaque(parent.as_fd());
            }
            let hidden = OsStr::from_bytes(hidden);
            match tree::stat(parent.as_fd(), hidden)? {
                None => tree::make_whiteout(parent.as_fd(), hidden),
                // This layer has a directory there: it stays, without what is beneath it.
                Some(found) if tree::is_dir(&found) => {
                    tree::make_opaque(tree::open_dir(parent.as_fd(), hidden)?.as_fd())
                }
                Some(_) => Ok(()), // what this layer has there hides what is beneath
            }
        };
        hide().map_err(|source| failed(path, source))
    }
}
