//! How much an image may ask of the host.

use std::thread;

/// Bounds on what is taken from a registry or an archive, so that neither can fill memory or disk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files, directories and so on in one layer.
    pub entries: u64,
    /// Bytes of one layer's tar once decompressed, and bytes its files add up to.
    pub layer_bytes: u64,
    /// Bytes of one blob as stored, and of a whole archive.
    pub blob_bytes: u64,
    /// Layers in one image; overlayfs stacks at most 500.
    pub layers: usize,
    /// Bytes of a manifest, an index or a configuration.
    pub metadata_bytes: u64,
    /// Files of an archive.
    pub archive_entries: usize,
    /// Layers that are unpacked at the same time, of all images together.
    pub unpacking: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            layer_bytes: 64 << 30,
            blob_bytes: 64 << 30,
            layers: 200,
            metadata_bytes: 4 << 20,
            archive_entries: 10_000,
            // Each takes a megabyte or two, and much of a core.
            unpacking: thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
        }
    }
}
