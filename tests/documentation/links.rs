//! Links of pages lead to files and headings that exist.

use std::path::{Component, Path, PathBuf};

use http::Uri;
use rehome_testing::markdown::Page;

use super::{pages, root};

/// Where pages send readers outside the repository. No test goes there: whoever adds one has looked.
const ELSEWHERE: [&str; 8] = [
    "helm.sh",
    "keepachangelog.com",
    "kind.sigs.k8s.io",
    "krew.sigs.k8s.io",
    "kubernetes.io",
    "rustup.rs",
    "semver.org",
    "www.redb.org",
];

/// What is wrong with the links of the pages below `root`, a line for each.
fn problems(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for (file, page) in pages(root) {
        for link in &page.links {
            if let Err(why) = follow(root, &file, &page, &link.target) {
                let place = format!("{}:{}", file.display(), link.line);
                problems.push(format!("{place}: {} {why}", link.target));
            }
        }
    }
    problems
}

fn follow(root: &Path, file: &Path, page: &Page, target: &str) -> Result<(), String> {
    if target.contains("://") {
        return outside(target);
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let other = if path.is_empty() {
        None
    } else {
        let beside = file.parent().unwrap_or(Path::new("")).join(path);
        let to = inside(&beside).ok_or("leaves the repository")?;
        let there = root.join(to);
        if !there.exists() {
            return Err("is no file".into());
        }
        Some(there)
    };
    if anchor.is_empty() {
        return Ok(());
    }
    let known = match other {
        Some(file) if file.extension().is_some_and(|extension| extension == "md") => {
            Page::read(&file)
                .map_err(|error| format!("{error:#}"))?
                .anchors
        }
        Some(_) => return Err("has an anchor, and is no page".into()),
        None => page.anchors.clone(),
    };
    if known.contains(anchor) {
        Ok(())
    } else {
        Err(format!("is no heading there; there are {known:?}"))
    }
}

fn outside(target: &str) -> Result<(), String> {
    let uri: Uri = target
        .parse()
        .map_err(|error| format!("is no address: {error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err("is not https".into());
    }
    match uri.host() {
        Some(host) if ELSEWHERE.contains(&host) => Ok(()),
        host => Err(format!(
            "is at {host:?}: look whether it is there, and list it"
        )),
    }
}

/// The path without `.` and `..`; `None` where it leads out.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

#[test]
fn no_link_is_dead() {
    let problems = problems(root());
    assert!(problems.is_empty(), "{problems:#?}");
}

/// `make docs` shows what its table of contents lists.
#[test]
fn every_page_is_in_the_site() {
    let contents = Path::new("docs/book/SUMMARY.md");
    let pages = pages(root());
    let (_, summary) = pages.iter().find(|(file, _)| file == contents).unwrap();
    let listed: Vec<_> = summary
        .links
        .iter()
        .map(|link| inside(&contents.parent().unwrap().join(&link.target)).unwrap())
        .collect();
    let files = pages
        .iter()
        .map(|(file, _)| file)
        .filter(|file| *file != contents);
    let missing: Vec<_> = files.filter(|file| !listed.contains(file)).collect();
    assert!(
        missing.is_empty(),
        "not in docs/book/SUMMARY.md: {missing:?}"
    );
}

/// The check above would notice.
#[test]
fn every_kind_of_dead_link_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("docs")).unwrap();
    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
    write("LICENSE", "");
    write(
        "README.md",
        "[good](docs/a.md#one) [good](LICENSE) [good](https://rustup.rs)\n",
    );
    write(
        "docs/a.md",
        "# One\n[good](../README.md) [good](#one) [good](.)\n\n[bad](b.md)\n[bad](#two)\n\
         [bad](../README.md#two)\n[bad](../../x)\n[bad](/etc)\n[bad](../LICENSE#one)\n\
         [bad](http://rustup.rs)\n[bad](https://example.com)\n[bad](https://)\n",
    );
    let problems = problems(folder.path());
    let places: Vec<_> = problems
        .iter()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    let bad: Vec<_> = (4..=12).map(|line| format!("docs/a.md:{line}")).collect();
    assert_eq!(places, bad, "{problems:#?}");
}
