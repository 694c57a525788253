//! Volumes: directories with a name that outlive the containers which mount them.
//!
//! ```text
//! <name>/volume.json   what it is
//! <name>/_data         what containers see
//! <name>/fill          a copy on its way into _data, complete
//! .new-*, .old-*       being made, being removed; nobody's after a crash
//! ```
//!
//! A volume appears by one rename and goes by one. So does `fill`, and from then on its way into `_data` is finished,
//! by the next start if need be: what a volume gets from an image it has as a whole or not at all.

mod error;
mod fill;
mod mount;
mod name;
mod store;

pub use error::VolumeError;
pub use mount::InvalidVolumeOptions;
pub use name::{InvalidVolumeName, check_name};
pub use store::{Trash, Volume, VolumeStore};
