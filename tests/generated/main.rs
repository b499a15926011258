//! `crds/`, the chart's copy and `docs/crds.md` equal what the types generate.

#![cfg(test)]

mod reference;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rehome::api::crds;

/// YAML files of a directory of the repository, by name.
fn committed(directory: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    fs::read_dir(&path)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
        .map(|entry| entry.unwrap().path())
        .map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&file).unwrap())
        })
        .collect()
}

fn generated() -> BTreeMap<String, String> {
    crds::files()
        .unwrap()
        .into_iter()
        .map(|file| (file.name, file.text))
        .collect()
}

fn assert_current(directory: &str) {
    let (committed, generated) = (committed(directory), generated());
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated), "files in {directory}");
    for (name, text) in generated {
        assert!(
            committed[&name] == text,
            "{directory}/{name} is out of date; run `make crds`"
        );
    }
}

#[test]
fn crds_directory_is_what_the_types_generate() {
    assert_current("crds");
}

#[test]
fn chart_copy_is_what_the_types_generate() {
    assert_current("charts/rehome/files/crds");
}
