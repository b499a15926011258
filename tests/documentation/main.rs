//! What the pages say is so: their links lead somewhere, their commands are run, and lists are complete.

#![cfg(test)]

mod commands;
mod failure_modes;
mod links;
mod played;

use std::path::{Path, PathBuf};

use rehome_testing::markdown::Page;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// Every page that people read, by its file relative to the root.
fn pages(root: &Path) -> Vec<(PathBuf, Page)> {
    let mut pages = Vec::new();
    let mut folders = ["", "docs", "examples", "charts/rehome"]
        .map(PathBuf::from)
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).into_iter().flatten() {
            let entry = entry.unwrap();
            let file = folder.join(entry.file_name());
            // Of the root only its own pages: what else is there is code, or was built.
            if entry.file_type().unwrap().is_dir() && folder != Path::new("") {
                folders.push(file);
            } else if file.extension().is_some_and(|extension| extension == "md") {
                let page = Page::read(&root.join(&file)).unwrap();
                pages.push((file, page));
            }
        }
    }
    pages.sort_by(|one, other| one.0.cmp(&other.0));
    pages
}
