//! The targets of `tests/fuzz`, found by their names.

#[path = "../tests/fuzz/targets/mod.rs"]
mod targets;

/// Feeds one input to the target of that name.
///
/// # Panics
/// An invariant is broken, or there is no such target.
pub fn check(name: &str, input: &[u8]) {
    let target = targets::TARGETS.iter().find(|target| target.name == name);
    target.expect("a target of that name").check(input);
}
