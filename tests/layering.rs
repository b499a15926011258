//! Holds the arrows between the rooms of `src` (see `docs/architecture.md`).
//!
//! A room may use the rooms of lower floors only. So there is no circle either: somewhere in it an
//! arrow would have to lead up, or across. Some rooms must also not know certain other names.
//! The checks read tokens, not text: comments and strings are free to name anything.

#![cfg(test)]

use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The floors, lowest first. Rooms on one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["api"],
    &["domain"],
    &["clock", "random"],
    &["wire"],
    &["registry"],
    &["telemetry", "metrics"],
    &["cluster"],
    &["gateway", "hub", "controller", "plugin", "probe"],
];

/// What a room must not know although it is on a lower floor, or is no room at all.
const WALLS: &[Wall] = &[
    Wall {
        rooms: &["api", "domain"],
        first: "kube",
        then: &["Api", "Client", "client", "runtime"],
    },
    Wall {
        rooms: &["api", "domain"],
        first: "tokio",
        then: &[],
    },
    Wall {
        rooms: &["api", "domain"],
        first: "hyper",
        then: &[],
    },
    Wall {
        rooms: &["api", "domain"],
        first: "reqwest",
        then: &[],
    },
    Wall {
        rooms: &["api", "domain"],
        first: "axum",
        then: &[],
    },
    Wall {
        rooms: &["api", "domain"],
        first: "aws_lc_rs",
        then: &["rand"],
    },
    Wall {
        rooms: &["api", "domain"],
        first: "std",
        then: &["SystemTime", "Instant"],
    },
    Wall {
        rooms: &["api", "domain"],
        first: "std",
        then: &["fs", "process", "env", "thread"],
    },
    Wall {
        rooms: &["api", "domain"],
        first: "SystemTime",
        then: &[],
    },
    Wall {
        rooms: &["wire", "registry", "hub"],
        first: "kube",
        then: &[],
    },
    Wall {
        rooms: &["wire", "registry", "hub"],
        first: "k8s_openapi",
        then: &[],
    },
    Wall {
        rooms: &["hub"],
        first: "crate",
        then: &["cluster"],
    },
    Wall {
        rooms: &["gateway"],
        first: "crate",
        then: &["registry"],
    },
    Wall {
        rooms: &["plugin"],
        first: "crate",
        then: &["registry", "wire"],
    },
    Wall {
        rooms: &["controller", "plugin"],
        first: "reqwest",
        then: &[],
    },
];

/// Paths that begin with `first` and name one of `then` later; any such path if `then` is empty.
struct Wall {
    rooms: &'static [&'static str],
    first: &'static str,
    then: &'static [&'static str],
}

impl Wall {
    fn stops(&self, room: &str, path: &[String]) -> bool {
        let names = |segment: &String| self.then.contains(&segment.as_str());
        self.rooms.contains(&room)
            && path[0] == self.first
            && (self.then.is_empty() || path.iter().any(names))
    }
}

/// Everything that is wrong with these files, given as the path below `src` and the source.
fn violations(files: &[(String, String)]) -> Vec<String> {
    files
        .iter()
        .flat_map(|(file, source)| violations_of(file, source))
        .collect()
}

fn violations_of(file: &str, source: &str) -> Vec<String> {
    let module = module_of(file);
    let Some(room) = module.first().cloned() else {
        return Vec::new();
    };
    let Some(floor) = floor_of(&room) else {
        return vec![format!(
            "{file}: `{room}` is no room: give it a floor in tests/layering.rs"
        )];
    };
    let tokens: TokenStream = match source.parse() {
        Ok(tokens) => tokens,
        Err(error) => return vec![format!("{file}: {error}")],
    };
    let mut paths = Vec::new();
    collect(tokens, &module, &mut paths);
    let mut found = Vec::new();
    for path in &paths {
        if path[0] == "crate"
            && let Some(other) = path.get(1).filter(|other| **other != room)
            && floor_of(other).is_some_and(|its_floor| its_floor >= floor)
        {
            found.push(format!(
                "{file}: `{room}` must not use `{other}`: {}",
                path.join("::")
            ));
        }
        if WALLS.iter().any(|wall| wall.stops(&room, path)) {
            found.push(format!(
                "{file}: `{room}` must not know {}",
                path.join("::")
            ));
        }
    }
    found.dedup();
    found
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The module that a file holds; empty for the crate root and the programs, which may use all.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" | "main" => Vec::new(),
        _ if path.starts_with("bin/") => Vec::new(),
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

/// Adds every path in the tokens, those that begin in this crate as from its root.
fn collect(tokens: TokenStream, module: &[String], paths: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at..] {
            [
                TokenTree::Ident(word),
                TokenTree::Ident(name),
                TokenTree::Group(body),
                ..,
            ] if word == "mod" && body.delimiter() == Delimiter::Brace => {
                let inner: Vec<_> = module.iter().cloned().chain([name.to_string()]).collect();
                collect(body.stream(), &inner, paths);
                at += 3;
            }
            [TokenTree::Ident(_), ..] => at += collect_path(&tokens[at..], &[], module, paths),
            [TokenTree::Group(group), ..] => {
                collect(group.stream(), module, paths);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Adds the path at the beginning of the tokens, or all paths of a `use` tree, and tells how many
/// tokens it took.
fn collect_path(
    tokens: &[TokenTree],
    before: &[String],
    module: &[String],
    paths: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    while let Some(TokenTree::Ident(name)) = tokens.get(at) {
        path.push(name.to_string());
        at += 1;
        if !is_double_colon(&tokens[at..]) {
            break;
        }
        at += 2;
        if let Some(TokenTree::Group(tree)) = tokens.get(at) {
            collect_tree(tree, &path, module, paths);
            return at + 1;
        }
    }
    paths.push(absolute(path, module));
    at
}

fn collect_tree(tree: &Group, before: &[String], module: &[String], paths: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tree.stream().into_iter().collect();
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
    for entry in tokens.split(is_comma).filter(|entry| !entry.is_empty()) {
        collect_path(entry, before, module, paths);
    }
}

fn is_double_colon(tokens: &[TokenTree]) -> bool {
    let colon = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ':');
    matches!(tokens, [one, two, ..] if colon(one) && colon(two))
}

/// Replaces leading `self` and `super` by the modules that they stand for.
fn absolute(path: Vec<String>, module: &[String]) -> Vec<String> {
    let up = path
        .iter()
        .take_while(|name| ["self", "super"].contains(&name.as_str()))
        .count();
    if up == 0 {
        return path;
    }
    let supers = path[..up].iter().filter(|name| *name == "super").count();
    let root = &module[..module.len().saturating_sub(supers)];
    let rest = &path[up..];
    std::iter::once("crate".to_owned())
        .chain(root.iter().chain(rest).cloned())
        .collect()
}

/// Every Rust file below a folder, as path and source.
fn read(folder: &Path, below: &str, files: &mut Vec<(String, String)>) {
    let entries = std::fs::read_dir(folder).expect("a folder of sources");
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let name = format!("{below}{}", entry.file_name().display());
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{name}/"), files);
        } else if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            files.push((
                name,
                std::fs::read_to_string(entry.path()).expect("a source"),
            ));
        }
    }
}

#[test]
fn no_room_looks_up_across_or_through_a_wall() {
    let mut files = Vec::new();
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut files,
    );
    assert!(files.len() > 10, "the sources were not found");
    let found = violations(&files);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// What the checker says about one planted file.
fn planted(file: &str, source: &str) -> Vec<String> {
    violations(&[(file.into(), source.into())])
}

#[test]
fn arrows_down_are_free() {
    assert!(
        planted(
            "controller/registration/mod.rs",
            "use crate::{api::v1alpha1, domain};"
        )
        .is_empty()
    );
    assert!(planted("cluster/apply.rs", "use crate::metrics::Calls;").is_empty());
    assert!(
        planted(
            "main.rs",
            "use rehome::controller; fn f() { crate::x::y() }"
        )
        .is_empty()
    );
    assert!(
        planted(
            "domain/ids.rs",
            "use super::policy; use kube::api::ObjectMeta;"
        )
        .is_empty()
    );
}

#[test]
fn an_arrow_upwards_is_caught_in_every_form() {
    for source in [
        "use crate::controller::Context;",
        "use crate::{api, controller};",
        "use crate::{api::{self, v1alpha1}, controller::{self}};",
        "use super::super::controller::x;",
        "use super::{super::controller, policy};",
        "fn f() { crate::controller::run() }",
        "mod tests { use super::super::super::controller::x; }",
        "macro_rules! m { () => { $crate::controller::x } }",
        "#[derive(crate::controller::D)] struct S;",
    ] {
        let found = planted("domain/policy.rs", source);
        assert_eq!(found.len(), 1, "{source}: {found:?}");
        assert!(
            found[0].contains("`domain` must not use `controller`"),
            "{found:?}"
        );
    }
}

#[test]
fn rooms_on_one_floor_do_not_know_each_other() {
    assert_eq!(planted("gateway/mod.rs", "use crate::hub::Hub;").len(), 1);
    assert_eq!(planted("hub/mod.rs", "use crate::controller::x;").len(), 1);
    assert_eq!(
        planted("controller/mod.rs", "use crate::gateway::x;").len(),
        1
    );
}

#[test]
fn a_circle_is_caught_wherever_it_is() {
    let rooms: Vec<&str> = FLOORS
        .iter()
        .flat_map(|floor| floor.iter().copied())
        .collect();
    for (one, two) in rooms
        .iter()
        .flat_map(|one| rooms.iter().map(move |two| (one, two)))
    {
        if one != two {
            let file =
                |from: &str, to: &str| (format!("{from}.rs"), format!("use crate::{to}::x;"));
            assert!(
                !violations(&[file(one, two), file(two, one)]).is_empty(),
                "{one} {two}"
            );
        }
    }
}

#[test]
fn a_forbidden_name_is_caught() {
    for source in [
        "use kube::Client;",
        "use kube::{CustomResource, runtime::watcher};",
        "type A = kube::api::Api<()>;",
        "use tokio::time::Instant;",
        "#[tokio::test] async fn t() {}",
        "use hyper::Request;",
        "use std::time::{Duration, SystemTime};",
        "fn f(at: SystemTime) {}",
        "fn f() { std::fs::read(\"x\"); }",
    ] {
        for room in ["api", "domain"] {
            assert_eq!(
                planted(&format!("{room}/x.rs"), source).len(),
                1,
                "{room}: {source}"
            );
        }
        assert!(planted("cluster/x.rs", source).is_empty());
    }
    assert_eq!(
        planted("hub/store.rs", "use k8s_openapi::api::core::v1::Secret;").len(),
        1
    );
    assert_eq!(planted("hub/store.rs", "use crate::cluster::x;").len(), 1);
    assert_eq!(
        planted("gateway/service.rs", "use crate::registry::x;").len(),
        1
    );
    assert_eq!(
        planted("plugin/plan.rs", "use crate::registry::x;").len(),
        1
    );
}

#[test]
fn comments_and_strings_may_name_anything() {
    let source =
        "//! See [`crate::controller`].\n/* tokio::spawn */ const S: &str = \"crate::hub::x\";";
    assert!(planted("domain/x.rs", source).is_empty());
}

#[test]
fn a_new_room_needs_a_floor() {
    assert!(planted("attic/boxes.rs", "")[0].contains("`attic` is no room"));
}
