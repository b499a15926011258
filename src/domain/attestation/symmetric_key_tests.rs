//! The published test vectors of the device API, and what must not pass.

use super::*;

const PRIMARY: &str =
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";
const SECONDARY: &str =
    "Pz49PDs6OTg3NjU0MzIxMC8uLSwrKikoJyYlJCMiISAfHh0cGxoZGBcWFRQTEhEQDw4NDAsKCQgHBgUEAwIBAA==";
const INDIVIDUAL: &str = "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=";

fn key(text: &str) -> SymmetricKey {
    text.parse().unwrap()
}

fn pair(primary: &str, secondary: &str) -> KeyPair {
    KeyPair {
        primary: key(primary),
        secondary: key(secondary),
    }
}

fn group() -> SharedKeys {
    SharedKeys::Group(pair(PRIMARY, SECONDARY))
}

fn judge_at(
    attestation: &SharedKeys,
    token: &str,
    id: &str,
    now: u64,
) -> Result<DeviceKeys, Refusal> {
    attestation.evaluate(&Claim {
        token: Some(&SasToken::parse(token).unwrap()),
        chain: None,
        scope: &"0ne000TEST1".parse().unwrap(),
        id: &id.parse().unwrap(),
        now,
        skew: super::super::DEFAULT_SKEW,
    })
}

fn judge(attestation: &SharedKeys, token: &str, id: &str) -> Result<DeviceKeys, Refusal> {
    judge_at(attestation, token, id, 1_800_000_000)
}

fn token(resource: &str, signature: &str, expiry: u64) -> String {
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}")
}

#[test]
fn device_keys_are_derived_from_the_id_as_it_is_spelt() {
    for (id, from_primary, from_secondary) in [
        (
            "device-001",
            "Tz4Wtei6uHSGQm0NiJy0Ijsh6/sJcnyJYOAfzqC4oKM=",
            "uKRKw5PpSW/lgyQMe15GpUEPAJIounjnOFCUC2SV+QI=",
        ),
        (
            "Device-001",
            "YXibH+z6O23cIvcGa1LmUYe11nxKx5NIWN5vy1MNplc=",
            "Gk24CTdzal0d6QhCK73E3fbYyYHAK+UHh0M3iZFrzyg=",
        ),
        (
            "sn:aa.bb_cc-01",
            "augedLI9iaXigy5hKFQMDtCScxlJ9fBKA7Wt1wqxxm4=",
            "plHLGb0VzSscRq6F8HmRr1R96vhiW/TDcBc5CKiHfRc=",
        ),
    ] {
        assert_eq!(
            derive_device_key(&key(PRIMARY), id).to_base64().as_str(),
            from_primary
        );
        assert_eq!(
            derive_device_key(&key(SECONDARY), id).to_base64().as_str(),
            from_secondary
        );
    }
    // The sample of the Azure page "How to provision devices using symmetric key enrollment groups".
    let published = key(
        "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==",
    );
    assert_eq!(
        derive_device_key(&published, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6")
            .to_base64()
            .as_str(),
        "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="
    );
}

#[test]
fn r02_each_spelling_of_the_resource_is_verified_as_it_stands() {
    for (id, resource, signature) in [
        (
            "device-001",
            "0ne000TEST1/registrations/device-001",
            "aYIl/FVMHb3Hu7DKSiQv9vIYi9/uELygvtJa5noKJ40=",
        ),
        (
            "device-001",
            "0ne000TEST1%2Fregistrations%2Fdevice-001",
            "j8rv1LaM9ZwWgL/2MYqvckLo99Q7HiKXY1+FiXlJK7k=",
        ),
        (
            "device-001",
            "0ne000TEST1%2fregistrations%2fdevice-001",
            "EhmwQBNsUzKmV10A8h65ZTX0yi9akL5nQq+zS7I7Eac=",
        ),
        (
            "Device-001",
            "0ne000TEST1/registrations/Device-001",
            "voWZOBKVcrPOGFtpbNF6j5XyCzDymucmbOti89pQDtU=",
        ),
        (
            "Device-001",
            "0ne000TEST1%2Fregistrations%2FDevice-001",
            "Tg0y6WYGGL3+19WYsQDfVHirZrvGbYRMHwuopSl0dKE=",
        ),
        (
            "sn:aa.bb_cc-01",
            "0ne000TEST1/registrations/sn:aa.bb_cc-01",
            "CCCjHLqyz+ug2M16cHtCnL5Uwi5mYpcL5APcKl5dmMM=",
        ),
        (
            "sn:aa.bb_cc-01",
            "0ne000TEST1%2Fregistrations%2Fsn%3Aaa.bb_cc-01",
            "pFBWwwKVC8m9lhAQCpPu2yUmim7lMqSpoCoxKWhhOg0=",
        ),
        (
            "sn:aa.bb_cc-01",
            "0ne000TEST1%2fregistrations%2fsn%3aaa.bb_cc-01",
            "q813BgMublMMt30kiQY/EJFA/mUeJ0sQsv0SpgkuCGs=",
        ),
    ] {
        let verdict = judge(&group(), &token(resource, signature, 1_900_000_000), id);
        assert!(verdict.is_ok(), "{resource}: {verdict:?}");
        // One bit more or less is another signature.
        let forged = signature
            .replace('=', "A")
            .replacen(&signature[..1], "z", 1);
        let verdict = judge(&group(), &token(resource, &forged, 1_900_000_000), id);
        assert!(
            matches!(verdict, Err(Refusal::WrongKey)),
            "{resource}: {verdict:?}"
        );
    }
}

#[test]
fn r03_the_tokens_of_every_sdk_are_accepted() {
    for token in [
        // Python, Node, Java, .NET, C.
        "SharedAccessSignature sr=0ne000TEST1%2Fregistrations%2Fdevice-001&sig=j8rv1LaM9ZwWgL%2F2MYqvckLo99Q7HiKXY1%2BFiXlJK7k%3D&se=1900000000",
        "SharedAccessSignature sr=0ne000TEST1/registrations/device-001&sig=aYIl%2FFVMHb3Hu7DKSiQv9vIYi9%2FuELygvtJa5noKJ40%3D&skn=registration&se=1900000000",
        "SharedAccessSignature sr=0ne000TEST1/registrations/device-001&sig=aYIl%2FFVMHb3Hu7DKSiQv9vIYi9%2FuELygvtJa5noKJ40%3D&se=1900000000&skn=",
        "SharedAccessSignature sr=0ne000TEST1%2Fregistrations%2Fdevice-001&sig=j8rv1LaM9ZwWgL%2F2MYqvckLo99Q7HiKXY1%2BFiXlJK7k%3D&se=1900000000&skn=registration",
        "SharedAccessSignature sr=0ne000TEST1%2fregistrations%2fdevice-001&sig=EhmwQBNsUzKmV10A8h65ZTX0yi9akL5nQq%2bzS7I7Eac%3d&se=1900000000&skn=registration",
    ] {
        let verdict = judge(&group(), token, "device-001");
        assert!(verdict.is_ok(), "{token}: {verdict:?}");
    }
}

#[test]
fn an_individual_key_is_tried_as_primary_and_as_secondary_until_it_expires() {
    let good = token(
        "0ne000TEST1%2Fregistrations%2Fdevice-001",
        "o11X53uwk0fdcdDASM8mOMAUr2WVDjSQ2+u81WToZCE=",
        1_900_000_000,
    );
    for keys in [pair(INDIVIDUAL, PRIMARY), pair(PRIMARY, INDIVIDUAL)] {
        let verdict = judge(&SharedKeys::Individual(keys), &good, "device-001");
        assert!(verdict.is_ok(), "{verdict:?}");
    }
    let neither = SharedKeys::Individual(pair(PRIMARY, SECONDARY));
    assert!(matches!(
        judge(&neither, &good, "device-001"),
        Err(Refusal::WrongKey)
    ));
    let individual = SharedKeys::Individual(pair(INDIVIDUAL, PRIMARY));
    let expired = token(
        "0ne000TEST1%2Fregistrations%2Fdevice-001",
        "/4AN4m+dYHlusxXEC7825A76CpEjlEqu61EGygX7gTQ=",
        1,
    );
    assert!(matches!(
        judge(&individual, &expired, "device-001"),
        Err(Refusal::Expired)
    ));
    assert!(judge_at(&individual, &expired, "device-001", 300).is_ok());
    assert!(matches!(
        judge_at(&individual, &expired, "device-001", 301),
        Err(Refusal::Expired)
    ));
}

#[test]
fn a_device_may_have_derived_its_key_from_the_lower_cased_id() {
    let lower = derive_device_key(&key(SECONDARY), "device-001");
    let token = SasToken::sign(
        "0NE000test1/registrations/DEVICE-001",
        &lower,
        1_900_000_000,
        None,
    );
    let keys = judge(&group(), &token, "Device-001").unwrap();
    assert_eq!(keys.secondary.to_base64(), lower.to_base64());
}

#[test]
fn the_group_key_itself_is_not_a_device_key() {
    let token = SasToken::sign(
        "0ne000TEST1/registrations/device-001",
        &key(PRIMARY),
        1_900_000_000,
        None,
    );
    assert!(matches!(
        judge(&group(), &token, "device-001"),
        Err(Refusal::WrongKey)
    ));
}

#[test]
fn a_token_for_something_else_proves_nothing() {
    let own = derive_device_key(&key(PRIMARY), "device-001");
    for resource in [
        "0ne000TEST2/registrations/device-001",
        "0ne000TEST1/registrations/device-002",
        "0ne000TEST1/registrations",
        "0ne000TEST1/registrations/device-001/operations",
        "0ne000TEST1/devices/device-001",
        "0ne000TEST1",
        "",
    ] {
        let token = SasToken::sign(resource, &own, 1_900_000_000, None);
        assert!(
            matches!(
                judge(&group(), &token, "device-001"),
                Err(Refusal::WrongScope)
            ),
            "{resource}"
        );
    }
}

#[test]
fn a_fingerprint_tells_credentials_apart_and_finds_them_again() {
    let id: RegistrationId = "Device-001".parse().unwrap();
    let of = |id: &str, keys: &DeviceKeys| fingerprint(&id.parse().unwrap(), keys);
    let keys = pair(PRIMARY, SECONDARY);
    assert_eq!(of("Device-001", &keys), of("device-001", &keys));
    // Computed with Python's hmac and hashlib.
    assert_eq!(of("device-001", &keys), "2a79f8a647e00e117df60673fb40a6de");
    for other in [
        pair(SECONDARY, PRIMARY),
        pair(PRIMARY, INDIVIDUAL),
        pair(INDIVIDUAL, SECONDARY),
    ] {
        assert_ne!(of("device-001", &keys), of("device-001", &other));
    }
    assert_ne!(of("device-001", &keys), of("device-002", &keys));

    for spelling in ["Device-001", "device-001"] {
        let derived = KeyPair {
            primary: derive_device_key(&key(PRIMARY), spelling),
            secondary: derive_device_key(&key(SECONDARY), spelling),
        };
        let found = group().keys_of(&id, &fingerprint(&id, &derived)).unwrap();
        assert_eq!(found.primary.to_base64(), derived.primary.to_base64());
    }
    assert!(group().keys_of(&id, "0000").is_none());
}

#[test]
fn keys_have_16_to_64_bytes_and_are_never_shown() {
    assert_eq!(
        "not base64!".parse::<SymmetricKey>().unwrap_err(),
        InvalidKey::NotBase64
    );
    for (length, legal) in [(0, false), (15, false), (16, true), (64, true), (65, false)] {
        let text = STANDARD.encode(vec![7_u8; length]);
        assert_eq!(
            format!(" {text}\n").parse::<SymmetricKey>().is_ok(),
            legal,
            "{length}"
        );
    }
    assert!(!format!("{:?}", group()).contains("AAEC"));
}
