//! Registration ids, device ids, ID scopes, operation ids and api-versions.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use rehome::domain::ids::{ApiVersion, DeviceId, IdScope, OperationId, RegistrationId};
use rehome::domain::object_name::object_name;

/// Longest name of a Kubernetes object that an id may lead to.
const LONGEST_NAME: usize = 170;

/// The input is one text, tried as each of them.
pub(super) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(id) = parsed::<RegistrationId>(text) {
        registration_id(&id);
    }
    if let Some(scope) = parsed::<IdScope>(text) {
        assert_eq!(scope.canonical(), text.to_ascii_lowercase());
        is_harmless(scope.as_str());
    }
    if let Some(operation) = parsed::<OperationId>(text) {
        is_harmless(operation.as_str());
        let other: RegistrationId = "somebody-else".parse().expect("it is one");
        assert!(!operation.may_belong_to(&other) || text.starts_with("5."));
    }
    if let Some(version) = parsed::<ApiVersion>(text) {
        is_harmless(version.as_str());
        let _ = (version.is_sticky(), version.has_retry_after_in_topics());
        let _ = version.has_reprovisioned_substatus();
    }
    parsed::<DeviceId>(text);
}

fn registration_id(id: &RegistrationId) {
    assert_eq!(id.canonical(), id.as_str().to_ascii_lowercase());
    is_harmless(id.as_str());
    assert!(OperationId::new(id, 7).may_belong_to(id));
    let name = object_name(id);
    assert!(name.len() <= LONGEST_NAME, "{name}");
    let legal =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    assert!(name.bytes().all(legal), "{name}");
    assert!(
        name.starts_with(|first: char| first.is_ascii_alphanumeric()),
        "{name}"
    );
    assert!(
        name.ends_with(|last: char| last.is_ascii_alphanumeric()),
        "{name}"
    );
    // Injective: what leads to this name is this id, in any spelling.
    if name != id.canonical()
        && let Ok(squatter) = name.parse::<RegistrationId>()
    {
        assert_ne!(object_name(&squatter), name);
    }
}

/// What is accepted is shown as it was sent, and short.
fn parsed<T: FromStr + Display + Debug>(text: &str) -> Option<T> {
    let id: T = text.parse().ok()?;
    assert_eq!(id.to_string(), text);
    assert!((1..=128).contains(&text.len()));
    Some(id)
}

/// Nothing in it can end a line of a log, a label of a metric or a segment of a path.
fn is_harmless(text: &str) {
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    assert!(
        !text.contains(['"', '\\', '/', '{', '}', '<', '>']),
        "{text:?}"
    );
}
