//! Files of an image, written to a tar in one order, with one time and one owner.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// Files by their path, which does not begin with a slash. Their folders come by themselves.
#[derive(Clone, Debug, Default)]
pub struct Tree(BTreeMap<String, Entry>);

#[derive(Clone, Debug)]
enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

impl Tree {
    /// A file that everybody may read.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.put(path, 0o644, content.into());
    }

    /// A file that everybody may execute.
    pub fn program(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.put(path, 0o755, content.into());
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        let target = target.to_owned();
        self.add(path, Entry::Link { target });
    }

    /// A folder that may be empty.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.add(path, Entry::Folder { mode });
    }

    /// A file or a folder of this machine with all that is in it, except what `leave_out` says.
    pub fn copy(
        &mut self,
        path: &str,
        from: &Path,
        leave_out: &dyn Fn(&Path) -> bool,
    ) -> Result<()> {
        let unreadable = || format!("cannot read {}", from.display());
        let metadata = from.symlink_metadata().with_context(unreadable)?;
        if metadata.is_symlink() {
            let target = std::fs::read_link(from)?;
            self.link(path, &target.to_string_lossy());
        } else if metadata.is_dir() {
            self.folder(path, 0o755);
            for entry in std::fs::read_dir(from).with_context(unreadable)? {
                let entry = entry?.path();
                let name = entry.file_name().unwrap_or_default().to_string_lossy();
                if !leave_out(&entry) {
                    self.copy(&format!("{path}/{name}"), &entry, leave_out)?;
                }
            }
        } else {
            let executable = metadata.permissions().mode() & 0o111 != 0;
            let content = std::fs::read(from).with_context(unreadable)?;
            self.put(path, if executable { 0o755 } else { 0o644 }, content);
        }
        Ok(())
    }

    /// What a file holds.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        match self.0.get(path) {
            Some(Entry::File { content, .. }) => Some(content),
            Some(Entry::Folder { .. } | Entry::Link { .. }) | None => None,
        }
    }

    /// The tar: sorted by path, owned by root, from the beginning of time.
    pub(super) fn tar(&self) -> Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            match entry {
                Entry::Folder { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    builder.append_data(&mut header, format!("{path}/"), &[][..])
                }
                Entry::File { mode, content } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(content.len().try_into()?);
                    builder.append_data(&mut header, path, &content[..])
                }
                Entry::Link { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    builder.append_link(&mut header, path, target)
                }
            }
            .with_context(|| format!("/{path} does not fit a tar"))?;
        }
        Ok(builder.into_inner()?)
    }

    fn put(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.add(path, Entry::File { mode, content });
    }

    fn add(&mut self, path: &str, entry: Entry) {
        for (end, _) in path.match_indices('/') {
            let folder = Entry::Folder { mode: 0o755 };
            self.0.entry(path[..end].to_owned()).or_insert(folder);
        }
        self.0.insert(path.to_owned(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_nothing_tells_when_or_by_whom() {
        let long = format!("a/{}/file", "x".repeat(120));
        let mut tree = Tree::default();
        tree.program(&long, "content");
        tree.link("a/link", "../elsewhere");
        tree.folder("tmp", 0o1777);
        let tar = tree.tar().unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            let owner = (
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mtime().unwrap(),
            );
            assert_eq!(owner, (0, 0, 0));
            let path = entry.path().unwrap().display().to_string();
            seen.push((path, header.mode().unwrap()));
        }
        let folder = long.trim_end_matches("file");
        let expected = [
            ("a/", 0o755),
            ("a/link", 0o777),
            (folder, 0o755),
            (&*long, 0o755),
            ("tmp/", 0o1777),
        ];
        assert_eq!(seen, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn a_folder_of_this_machine_is_copied_but_for_what_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        for name in ["sub/kept", "sub/left"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let mut tree = Tree::default();
        let leave_out = |path: &Path| path.ends_with("left");
        tree.copy("there", folder.path(), &leave_out).unwrap();
        assert_eq!(tree.content("there/sub/kept").unwrap(), b"sub/kept");
        assert!(tree.content("there/sub/left").is_none());
        assert!(
            tree.copy("x", &folder.path().join("none"), &leave_out)
                .is_err()
        );
    }
}
