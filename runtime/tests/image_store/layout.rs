//! Makes OCI image layouts, as a builder would.

use std::fs;
use std::io::Write;

use anyhow::Result;
use nuncio_runtime::image::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A layer's tar in the making.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref().to_vec();
        self.add(name, tar::EntryType::Regular, 0o644, &content)
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.add(name, tar::EntryType::Directory, 0o755, &[])
    }

    pub(crate) fn add(
        mut self,
        name: &str,
        kind: tar::EntryType,
        mode: u32,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, name, content).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// An OCI layout in a directory.
pub(crate) struct Layout {
    pub(crate) dir: TempDir,
    entries: Vec<Value>,
}

impl Layout {
    pub(crate) fn new() -> Result<Self> {
        let dir = TempDir::new()?;
        fs::create_dir_all(dir.path().join("blobs/sha256"))?;
        fs::write(
            dir.path().join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        Ok(Self {
            dir,
            entries: Vec::new(),
        })
    }

    /// One image with one name, the most usual case.
    pub(crate) fn of(name: &str, layers: Vec<Layer>, compression: Compression) -> Result<Self> {
        let mut layout = Self::new()?;
        let manifest = layout.image(layers, compression, "amd64")?;
        layout.name(name, manifest)?;
        Ok(layout)
    }

    pub(crate) fn blob(&self, content: &[u8], media_type: &str) -> Result<Value> {
        let digest = Digest::of(content);
        fs::write(
            self.dir.path().join("blobs/sha256").join(digest.hex()),
            content,
        )?;
        Ok(json!({"mediaType": media_type, "digest": digest.to_string(), "size": content.len()}))
    }

    /// Stores an image; gives back its manifest's descriptor.
    pub(crate) fn image(
        &self,
        layers: Vec<Layer>,
        compression: Compression,
        architecture: &str,
    ) -> Result<Value> {
        let mut diffs = Vec::new();
        let mut descriptors = Vec::new();
        for layer in layers {
            let plain = layer.bytes();
            diffs.push(Digest::of(&plain).to_string());
            let (stored, suffix) = match compression {
                Compression::None => (plain, ""),
                Compression::Gzip => (gzip(&plain)?, "+gzip"),
                Compression::Zstd => (zstd::encode_all(&plain[..], 3)?, "+zstd"),
            };
            descriptors.push(self.blob(
                &stored,
                &format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            )?);
        }
        let config = json!({
            "created": "2020-01-02T03:04:05Z", "architecture": architecture, "os": "linux",
            "config": {"Cmd": ["/bin/true"], "Env": ["A=b"], "ExposedPorts": {"6379/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = self.blob(
            config.to_string().as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        )?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": descriptors});
        self.blob(manifest.to_string().as_bytes(), media_type)
    }

    /// An index over images, each with its platform.
    pub(crate) fn index(&self, images: Vec<(Value, &str)>) -> Result<Value> {
        let manifests: Vec<_> = images
            .into_iter()
            .map(|(mut image, architecture)| {
                image["platform"] = json!({"os": "linux", "architecture": architecture});
                image
            })
            .collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        self.blob(index.to_string().as_bytes(), media_type)
    }

    /// The hexadecimal digest of a layer's blob of the first image, the lowest being 0.
    pub(crate) fn layer_blob(&self, index: usize) -> Result<String> {
        let manifest = &self.entries[0]["digest"];
        let hex = |digest: &Value| {
            let digest: Digest = digest.as_str().unwrap_or_default().parse()?;
            Ok::<_, anyhow::Error>(digest.hex())
        };
        let manifest = fs::read(self.dir.path().join("blobs/sha256").join(hex(manifest)?))?;
        let manifest: Value = serde_json::from_slice(&manifest)?;
        hex(&manifest["layers"][index]["digest"])
    }

    /// Adds a named entry to index.json.
    pub(crate) fn name(&mut self, name: &str, descriptor: Value) -> Result<()> {
        self.annotate("org.opencontainers.image.ref.name", name, descriptor)
    }

    pub(crate) fn annotate(&mut self, key: &str, value: &str, mut descriptor: Value) -> Result<()> {
        descriptor["annotations"] = json!({key: value});
        self.entries.push(descriptor);
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        Ok(fs::write(
            self.dir.path().join("index.json"),
            index.to_string(),
        )?)
    }

    /// The tar of its files.
    pub(crate) fn pack(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for name in ["oci-layout", "index.json"] {
            tar.append_path_with_name(self.dir.path().join(name), name)?;
        }
        tar.append_dir_all("blobs", self.dir.path().join("blobs"))?;
        Ok(tar.into_inner()?)
    }
}

pub(crate) fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}
