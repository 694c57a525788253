//! Asks endpoints whether they are well.

mod check;

pub use check::{Check, CheckKind};
