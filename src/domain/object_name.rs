//! The name of the Kubernetes object that holds a registration.
//!
//! Injective, so that no device can be steered onto another's object. An id that is a Kubernetes
//! name already stays itself; any other becomes `{readable}-x{hash}`. A plain id that looks like such
//! a name is hashed too, so the two forms never meet.

use aws_lc_rs::digest;

use super::ids::RegistrationId;

/// Hex digits of the hash: 160 bits, out of reach of a search for a second id.
const DIGITS: usize = 40;

/// The object's name: a DNS-1123 subdomain of at most 170 characters. Equal for ids that differ
/// only in case, and for no others.
pub fn object_name(id: &RegistrationId) -> String {
    let canonical = id.canonical();
    if is_subdomain(canonical) && !is_hashed_form(canonical) {
        return canonical.to_owned();
    }
    let digest = digest::digest(&digest::SHA256, canonical.as_bytes());
    let readable = canonical.replace(['.', '_', ':'], "-");
    format!("{readable}-x{}", super::hex(&digest.as_ref()[..DIGITS / 2]))
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(|label| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    })
}

fn is_hashed_form(text: &str) -> bool {
    let Some((_, digits)) = text.rsplit_once("-x") else {
        return false;
    };
    digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(id: &str) -> String {
        object_name(&id.parse().unwrap())
    }

    #[test]
    fn readable_ids_stay_themselves_and_others_are_hashed() {
        for (id, expected) in [
            ("device-001", "device-001"),
            ("Device-001", "device-001"),
            ("press.7", "press.7"),
            ("7", "7"),
            (
                "sn:aa.bb_cc-01",
                "sn-aa-bb-cc-01-xe44a1d0020c4b1c70ca4f6bd8db24ffa2a66af75",
            ),
        ] {
            assert_eq!(name(id), expected, "{id}");
        }
        for hashed in ["ends-", "a..b", "a.-b", "a-.b", "a_b", "a:b"] {
            assert!(is_hashed_form(&name(hashed)), "{hashed}");
        }
    }

    #[test]
    fn a_plain_id_cannot_take_the_name_of_a_hashed_one() {
        let victim = name("sn:aa");
        assert_ne!(name(&victim), victim);
        assert_ne!(name(&name(&victim)), name(&victim));
    }

    fn ids() -> impl Strategy<Value = String> {
        "[a-c0-1][-a-c0-1._:]{0,6}[a-c0-1-]|[a-c]|[a-c]-x[0-9a-f]{40}"
    }

    proptest! {
        #[test]
        fn names_are_equal_only_for_equal_ids(one in ids(), two in ids()) {
            prop_assert_eq!(name(&one) == name(&two), one == two);
            // The strongest attempt: an id that is another's name.
            if name(&one) != one {
                prop_assert_ne!(name(&name(&one)), name(&one));
            }
        }

        #[test]
        fn names_are_legal(id in "[A-Za-z0-9][-A-Za-z0-9._:]{0,126}[A-Za-z0-9-]") {
            let name = name(&id);
            prop_assert!(is_subdomain(&name) && name.len() <= 253, "{}", name);
        }
    }
}
