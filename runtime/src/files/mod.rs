//! Files of containers and volumes, reached so that nothing in them can lead out of their root.
//!
//! Whoever runs in a container may change its directories and links while they are looked at. So every path is
//! resolved by the kernel within a root (openat2(2)), what is found is used by its descriptor, and the last part of a
//! name is never followed unless that was asked for.

mod copy;
mod extract;
mod pack;
mod path;
mod root;
mod stat;
mod view;
mod walk;

pub(crate) use copy::copy_tree;
pub use extract::{ExtractError, Extraction, extract_untrusted};
pub use path::{ContainerPath, InvalidPath};
pub use root::Root;
pub use stat::{Look, PathStat};
pub use view::{View, with_own_mounts};
pub(crate) use walk::{Found, names, walk};
pub use walk::{Usage, usage};
