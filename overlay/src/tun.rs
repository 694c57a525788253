//! TUN devices, which only their own driver makes: netlink refuses to.

use std::io;

use tun_rs::DeviceBuilder;

/// What the kernel is asked for to see whether there are any; it chooses the number.
const TRIAL: &str = "nuncio-try%d";

/// Why this host has no TUN devices.
#[derive(Debug, thiserror::Error)]
#[error("make a TUN device: load the module tun, and see that /dev/net/tun is there")]
pub struct NoTunError(#[from] io::Error);

/// Makes a device that stays when nobody serves it. Who does must take large packets (offload), as this does.
pub(crate) fn make(name: &str) -> Result<(), NoTunError> {
    open(name)?.persist()?;
    Ok(())
}

/// Tries whether this host can have TUN devices, which encrypted networks need.
///
/// # Errors
///
/// [`NoTunError`], with what the kernel says.
pub fn can_make_tun() -> Result<(), NoTunError> {
    open(TRIAL)?;
    Ok(())
}

fn open(name: &str) -> io::Result<tun_rs::SyncDevice> {
    DeviceBuilder::new()
        .name(name)
        .with(|device| {
            device.offload(true);
        })
        .inherit_enable_state()
        .build_sync()
}
