//! Shared access signatures.

use rehome::domain::attestation::{SymmetricKey, derive_device_key};
use rehome::domain::sas::SasToken;

use super::gateway::{KEY, SCOPE};

/// The input is a token; it can only be accepted for the device whose key signed the seeds.
pub(super) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(token) = SasToken::parse(text) else {
        return;
    };
    let group: SymmetricKey = KEY.parse().expect("a key");
    let stranger = derive_device_key(&group, "device-002");
    assert!(
        !token.is_signed_by(&stranger),
        "a signature was forged: {text}"
    );
    if token.is_signed_by(&derive_device_key(&group, "device-001")) {
        let resource = token.resource();
        let expected = format!("{SCOPE}/registrations/device-001");
        assert_eq!(
            resource, expected,
            "a signature was moved to something else"
        );
    }
}
