//! Who a link, or a user name, says it is. Pure.

use percent_encoding::percent_decode_str;

use crate::domain::ids::{IdScope, RegistrationId};

/// An ID scope and a registration id.
pub(super) type Names = (IdScope, RegistrationId);

/// Reads `{idScope}/registrations/{registrationId}`, also with a slash before it (Java), or as a URL
/// with a host (C).
pub(super) fn names(address: &str) -> Option<Names> {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => address.strip_prefix('/').unwrap_or(address),
    };
    let mut parts = path.split('/');
    let (scope, word, id) = (parts.next()?, parts.next()?, parts.next()?);
    if !word.eq_ignore_ascii_case("registrations") || parts.next().is_some() {
        return None;
    }
    let decoded = |text| percent_decode_str(text).decode_utf8().ok();
    Some((decoded(scope)?.parse().ok()?, decoded(id)?.parse().ok()?))
}

/// Whether both mean the same device.
pub(super) fn same((scope, id): &Names, (other_scope, other_id): &Names) -> bool {
    scope.canonical() == other_scope.canonical() && id.canonical() == other_id.canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r20_every_form_of_a_link_address_is_understood() {
        for address in [
            "0ne000TEST1/registrations/Device-001",  // Node, .NET
            "/0ne000TEST1/registrations/Device-001", // Java
            "amqps://dps.example.com/0ne000TEST1/registrations/Device-001", // C
            "amqps://dps.example.com:5671/0ne000TEST1/registrations/Device-001",
            "0ne000TEST1/registrations/Device%2d001",
        ] {
            let (scope, id) = names(address).unwrap();
            assert_eq!((scope.as_str(), id.as_str()), ("0ne000TEST1", "Device-001"));
        }
    }

    #[test]
    fn other_addresses_lead_nowhere() {
        for address in [
            "",
            "/",
            "0ne000TEST1",
            "0ne000TEST1/registrations",
            "0ne000TEST1/registrations/",
            "0ne000TEST1/devices/device-001",
            "0ne000TEST1/registrations/device-001/more",
            "//0ne000TEST1/registrations/device-001",
            "amqps://0ne000TEST1",
            "0ne000TEST1/registrations/-bad-",
            "0ne000TEST1/registrations/%ff",
        ] {
            assert!(names(address).is_none(), "{address}");
        }
    }

    #[test]
    fn names_are_compared_without_regard_to_case() {
        let one = names("0ne000TEST1/registrations/Device-001").unwrap();
        assert!(same(
            &one,
            &names("/0ne000TEST1/registrations/device-001").unwrap()
        ));
        assert!(!same(
            &one,
            &names("0ne000TEST1/registrations/device-002").unwrap()
        ));
        assert!(!same(
            &one,
            &names("0ne000TEST2/registrations/device-001").unwrap()
        ));
    }
}
