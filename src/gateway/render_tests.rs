use jiff::ToSpan as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;
use crate::api::v1alpha1::{EnrollmentRef, PastOperation, RegistrationRequest};

const OPERATION: &str = "5.0123456789abcdef.b1e02da8-c3a0-4ff2-a121-7ea7a6b7f550";

fn record(state: Option<RegistrationState>) -> Record {
    let created = Timestamp::from_second(1_700_000_000).unwrap() + 1_234_567.microseconds();
    Record {
        name: "press-7".into(),
        uid: "uid".into(),
        resource_version: "1".into(),
        deleting: false,
        created,
        request: Some(RegistrationRequest {
            operation_id: OPERATION.into(),
            api_version: "2019-03-31".into(),
            enrollment: EnrollmentRef {
                name: "line-3".into(),
                uid: "e".into(),
            },
            credential: "c".into(),
            proposed_hub: None,
            reason: "InitialAssignment".into(),
            payload_digest: None,
            storage_root_key: None,
            verify_home: false,
            traceparent: None,
            requested_at: MicroTime(created),
        }),
        state,
        substatus: Some(Substatus::InitialAssignment),
        assigned_hub: Some("west.test".into()),
        device_id: Some("press-seven".into()),
        home: None,
        operation_id: state.map(|_| OPERATION.into()),
        policy: None,
        placement_hash: None,
        moving: false,
        cleanup: Vec::new(),
        error_code: Some(400_208),
        error_message: Some("no hub".into()),
        history: Vec::new(),
        assigned_first: None,
        last_changed: None,
        home_checked: None,
    }
}

fn shown_to(record: &Record, api_version: &str, group: Option<&Group>) -> Shown {
    let (id, api_version) = ("Press-7".parse().unwrap(), api_version.parse().unwrap());
    let asker = Asker {
        id: &id,
        api_version: &api_version,
        group,
        authentication_key: None,
    };
    operation(record, OPERATION, &asker).unwrap()
}

fn body(record: &Record) -> Value {
    shown_to(record, "2019-03-31", None).body
}

#[test]
fn r10_r11_r26_an_operation_under_way_is_assigning_with_its_registration() {
    for state in [None, Some(RegistrationState::Assigning)] {
        let body = body(&record(state));
        assert_eq!(
            (&body["operationId"], &body["status"]),
            (&OPERATION.into(), &"assigning".into())
        );
        let registration = &body["registrationState"];
        assert_eq!(
            registration["registrationId"], "Press-7",
            "in the device's spelling"
        );
        assert_eq!(registration["status"], "assigning");
        assert!(registration.get("assignedHub").is_none());
    }
}

#[test]
fn r13_an_assigned_device_learns_hub_and_device_id() {
    let body = body(&record(Some(RegistrationState::Assigned)));
    let registration = &body["registrationState"];
    assert_eq!(
        (&body["status"], &registration["status"]),
        (&"assigned".into(), &"assigned".into())
    );
    assert_eq!(registration["assignedHub"], "west.test");
    assert_eq!(registration["deviceId"], "press-seven");
    assert_eq!(registration["substatus"], "initialAssignment");
    assert_eq!(
        registration["createdDateTimeUtc"],
        "2023-11-14T22:13:21.2345670Z"
    );
    assert_eq!(
        registration["lastUpdatedDateTimeUtc"],
        "2023-11-14T22:13:21.2345670Z"
    );
    let etag = STANDARD
        .decode(registration["etag"].as_str().unwrap())
        .unwrap();
    assert!(etag.starts_with(b"\"") && etag.ends_with(b"\"") && etag.len() == 38);
    assert!(registration.get("x509").is_none(), "R14");
    assert!(registration.get("payload").is_none(), "R15");
    assert!(registration.get("symmetricKey").is_none());
    for (x509, kind, other) in [
        (false, "symmetricKey", "x509"),
        (true, "x509", "symmetricKey"),
    ] {
        let name = "line-3".to_owned();
        let group = Group { name, x509 };
        let record = record(Some(RegistrationState::Assigned));
        let in_group = shown_to(&record, "2021-06-01", Some(&group));
        let registration = &in_group.body["registrationState"];
        assert_eq!(registration[kind], json!({ "enrollmentGroupId": "line-3" }));
        assert!(registration.get(other).is_none());
    }
}

#[test]
fn r12_failed_and_disabled_say_a_code_and_a_message() {
    let body = body(&record(Some(RegistrationState::Failed)));
    let registration = &body["registrationState"];
    assert_eq!(
        (&body["status"], &registration["errorCode"]),
        (&"failed".into(), &400_208.into())
    );
    assert_eq!(registration["errorMessage"], "no hub");
    assert_eq!(registration["registrationId"], "Press-7");

    let mut silent = record(Some(RegistrationState::Disabled));
    (silent.error_code, silent.error_message) = (None, None);
    let body = self::body(&silent);
    let registration = &body["registrationState"];
    assert_eq!(
        (&body["status"], &registration["status"]),
        (&"disabled".into(), &"disabled".into())
    );
    assert!(registration["errorCode"].is_i64() && registration["errorMessage"].is_string());
    assert!(registration.get("substatus").is_none(), "only for assigned");
}

#[test]
fn the_fourth_substatus_is_for_those_who_know_it() {
    let mut adopted = record(Some(RegistrationState::Assigned));
    adopted.substatus = Some(Substatus::ReprovisionedToInitialAssignment);
    for (api_version, word) in [
        ("2017-11-15", "initialAssignment"),
        ("2019-03-31", "initialAssignment"),
        ("2019-04-15", "reprovisionedToInitialAssignment"),
        ("2021-06-01", "reprovisionedToInitialAssignment"),
    ] {
        let shown = shown_to(&adopted, api_version, None);
        assert_eq!(
            shown.body["registrationState"]["substatus"], word,
            "{api_version}"
        );
    }
    for (substatus, word) in [
        (Substatus::DeviceDataMigrated, "deviceDataMigrated"),
        (Substatus::DeviceDataReset, "deviceDataReset"),
    ] {
        adopted.substatus = Some(substatus);
        assert_eq!(body(&adopted)["registrationState"]["substatus"], word);
    }
}

#[test]
fn no_hub_is_named_while_a_move_is_open() {
    let mut moving = record(Some(RegistrationState::Assigned));
    moving.moving = true;
    let shown = shown_to(&moving, "2019-03-31", None);
    assert!(!shown.is_final());
    assert!(shown.body["registrationState"].get("assignedHub").is_none());
}

#[test]
fn r17_past_operations_stay_readable_and_keep_their_answer() {
    let mut moved = record(Some(RegistrationState::Assigned));
    let over = moved.created + 5.seconds();
    moved.history = vec![PastOperation {
        operation_id: "5.old".into(),
        state: RegistrationState::Assigned,
        substatus: Some(Substatus::InitialAssignment),
        assigned_hub: Some("east.test".into()),
        reason: "InitialAssignment".into(),
        completed_at: MicroTime(over),
    }];
    let (id, api_version) = ("press-7".parse().unwrap(), "2019-03-31".parse().unwrap());
    let asker = Asker {
        id: &id,
        api_version: &api_version,
        group: None,
        authentication_key: None,
    };
    let past = operation(&moved, "5.old", &asker).unwrap();
    assert_eq!(past.body["operationId"], "5.old");
    assert_eq!(past.body["registrationState"]["assignedHub"], "east.test");
    assert_eq!(
        past.body["registrationState"]["lastUpdatedDateTimeUtc"],
        timestamp(over)
    );
    assert_eq!(operation(&moved, "5.never", &asker), None);
    // Every replica says the same.
    assert_eq!(past, operation(&moved.clone(), "5.old", &asker).unwrap());
}

#[test]
fn answers_stay_far_below_what_the_smallest_client_takes() {
    let mut wordy = record(Some(RegistrationState::Failed));
    wordy.error_message = Some("é".repeat(100_000));
    assert!(body(&wordy).to_string().len() < 16 * 1024);
}

#[test]
fn times_have_seven_digits() {
    let whole = Timestamp::from_second(0).unwrap();
    assert_eq!(timestamp(whole), "1970-01-01T00:00:00.0000000Z");
    assert_eq!(
        timestamp(whole + 100.nanoseconds()),
        "1970-01-01T00:00:00.0000001Z"
    );
}
