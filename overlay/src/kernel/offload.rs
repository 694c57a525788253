//! Who computes the checksums of what networks carry between hosts.

use std::io;

use super::{Object, pass::Pass};
use crate::{Carrier, Segment, sys};

impl Pass<'_> {
    /// Has VXLAN devices leave checksums to the underlay's device or not, as far as it is said.
    pub(super) fn offloads(&mut self, segments: &[Segment]) {
        let tunnels = segments.iter().filter_map(|segment| segment.vxlan.as_ref());
        for vxlan in tunnels.filter(|vxlan| vxlan.carrier == Carrier::Vxlan) {
            let Some(wanted) = vxlan.offload else {
                continue;
            };
            let object = Object::Offload(vxlan.link.clone(), wanted);
            match set(&vxlan.link, wanted) {
                Ok(false) => self.stands(false, object),
                Ok(true) => self.made(object, false, Ok(())),
                Err(error) => self.made(object, false, Err(error)),
            }
        }
    }
}

/// Tells whether that was to be changed.
fn set(link: &str, wanted: bool) -> io::Result<bool> {
    if sys::tx_checksum(link)? == wanted {
        return Ok(false);
    }
    sys::set_tx_checksum(link, wanted).map(|()| true)
}
