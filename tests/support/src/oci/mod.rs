//! Container images without a container engine: an archive in the layout of the OCI image
//! specification, one layer and one platform, the same bytes for the same content.
//!
//! `ctr images import`, `podman load`, `skopeo copy oci-archive:` and Docker from 25 on read it.

mod program;
mod tree;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

pub use program::{Architecture, Program};
pub use tree::Tree;

/// An image and how it is run.
pub struct Image {
    /// The name that it is imported under, such as `example.com/rehome:1.0`.
    pub name: String,
    pub architecture: Architecture,
    /// RFC 3339; the time of the source, not of the build, or two builds would differ.
    pub created: String,
    pub files: Tree,
    pub entrypoint: Vec<String>,
    /// `UID:GID`, in numbers: Kubernetes must see that it is not root.
    pub user: String,
    pub environment: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `sha256:…` of the manifest, by which a registry knows the image.
    pub digest: String,
    /// Bytes of the layer as it is sent.
    pub compressed: usize,
    /// Bytes of its files in a tar.
    pub unpacked: usize,
}

/// A piece of an image, known by its content.
struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
}

impl Image {
    /// Writes the archive, whole or not at all.
    pub fn write(&self, archive: &Path) -> Result<Written> {
        let (tree, written) = self.layout()?;
        let partial = archive.with_extension("partial");
        std::fs::write(&partial, tree.tar()?)
            .and_then(|()| std::fs::rename(&partial, archive))
            .with_context(|| format!("cannot write {}", archive.display()))?;
        Ok(written)
    }

    /// The files of the archive.
    fn layout(&self) -> Result<(Tree, Written)> {
        let layer = self.files.tar()?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&layer)?;
        let compressed = Blob::new(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            gzip.finish()?,
        );
        let config = Blob::json(
            "application/vnd.oci.image.config.v1+json",
            &self.config(&layer),
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor(),
            "layers": [compressed.descriptor()],
            "annotations": self.labels,
        });
        let manifest = Blob::json("application/vnd.oci.image.manifest.v1+json", &manifest);
        let mut descriptor = manifest.descriptor();
        descriptor["platform"] = json!({ "architecture": self.architecture.name(), "os": "linux" });
        descriptor["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        let written = Written {
            digest: manifest.digest(),
            compressed: compressed.bytes.len(),
            unpacked: layer.len(),
        };
        let mut tree = Tree::default();
        tree.file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        tree.file("index.json", index.to_string());
        for blob in [compressed, config, manifest] {
            tree.file(
                &format!("blobs/{}", blob.digest().replace(':', "/")),
                blob.bytes,
            );
        }
        Ok((tree, written))
    }

    fn config(&self, layer: &[u8]) -> Value {
        json!({
            "architecture": self.architecture.name(),
            "os": "linux",
            "created": self.created,
            "config": {
                "Entrypoint": self.entrypoint,
                "User": self.user,
                "Env": self.environment,
                "Labels": self.labels,
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [sha256(layer)] },
            "history": [{ "created": self.created, "created_by": "make image" }],
        })
    }
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { media_type, bytes }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        sha256(&self.bytes)
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest(),
            "size": self.bytes.len(),
        })
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in digest(&SHA256, bytes).as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let mut files = Tree::default();
        files.file("etc/motd", "hello");
        files.program("usr/bin/hello", vec![1; 10_000]);
        Image {
            name: "example.com/hello:1".into(),
            architecture: Architecture::Amd64,
            created: "2026-05-04T03:02:01Z".into(),
            files,
            entrypoint: vec!["/usr/bin/hello".into()],
            user: "65532:65532".into(),
            environment: vec!["A=b".into()],
            labels: [(
                "org.opencontainers.image.title".to_owned(),
                "Hello".to_owned(),
            )]
            .into(),
        }
    }

    /// A JSON blob of the layout, by its descriptor.
    fn read(tree: &Tree, descriptor: &Value) -> Value {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        let bytes = tree.content(&format!("blobs/{digest}")).unwrap();
        assert_eq!(descriptor["size"], bytes.len());
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn the_same_content_is_the_same_archive_and_other_content_another() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|name| folder.path().join(name));
        let written = image().write(&one).unwrap();
        assert_eq!(written, image().write(&two).unwrap());
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(two).unwrap());
        let mut other = image();
        other.files.file("etc/motd", "hullo");
        assert_ne!(written.digest, other.write(&three).unwrap().digest);
        assert_ne!(std::fs::read(one).unwrap(), std::fs::read(three).unwrap());
    }

    #[test]
    fn what_runs_as_whom_stands_where_a_container_runtime_looks() {
        let (tree, written) = image().layout().unwrap();
        let index: Value = serde_json::from_slice(tree.content("index.json").unwrap()).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], written.digest);
        assert_eq!(
            entry["annotations"]["io.containerd.image.name"],
            "example.com/hello:1"
        );
        assert_eq!(entry["platform"]["architecture"], "amd64");
        let manifest = read(&tree, entry);
        let config = read(&tree, &manifest["config"]);
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/hello"]));
        assert_eq!(
            config["config"]["Labels"]["org.opencontainers.image.title"],
            "Hello"
        );
        let unpacked = image().files.tar().unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([sha256(&unpacked)]));
        assert!(written.compressed < written.unpacked, "{written:?}");
    }
}
