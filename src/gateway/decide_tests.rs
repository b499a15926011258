use jiff::ToSpan as _;

use super::*;
use crate::api::v1alpha1::AllocationPolicy;
use crate::domain::allocation::Member;

fn pool() -> Pool {
    let hub = HubRef {
        name: "west".into(),
        uid: "uid-west".into(),
        host_name: "west.test".into(),
    };
    Pool {
        policy: AllocationPolicy::Hashed,
        members: vec![Member {
            hub,
            weight: 1,
            available: true,
        }],
    }
}

fn asked() -> Asked {
    Asked {
        id: "Press-7".parse().unwrap(),
        api_version: "2019-03-31".parse().unwrap(),
        enrollment: EnrollmentRef {
            name: "line-3".into(),
            uid: "uid-line-3".into(),
        },
        disabled: false,
        rule: Rule::MigrateData,
        pool: pool(),
        credential: "c0ffee".into(),
        payload_digest: None,
        storage_root_key: None,
        traceparent: None,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + seconds.seconds()
}

/// A device that asked exactly `asked` and was assigned at second 1000.
fn assigned(asked: &Asked) -> Record {
    let request = asked.request(None, at(999), &operation(), false);
    Record {
        name: "press-7".into(),
        uid: "uid-press-7".into(),
        resource_version: "1".into(),
        deleting: false,
        created: at(999),
        operation_id: Some(request.operation_id.clone()),
        request: Some(request),
        state: Some(RegistrationState::Assigned),
        substatus: None,
        assigned_hub: Some("west.test".into()),
        device_id: Some("Press-7".into()),
        home: Some(pool().members[0].hub.clone()),
        policy: Some(asked.rule.as_str().into()),
        placement_hash: Some(asked.pool.hash()),
        moving: false,
        cleanup: Vec::new(),
        error_code: None,
        error_message: None,
        history: Vec::new(),
        assigned_first: Some(at(1000)),
        last_changed: Some(at(1000)),
        home_checked: None,
    }
}

fn operation() -> OperationId {
    OperationId::new(&"press-7".parse().unwrap(), 1)
}

fn decided(asked: &Asked, record: Option<&Record>, seconds: i64) -> Decision {
    decided_after(asked, record, seconds, None)
}

fn decided_after(
    asked: &Asked,
    record: Option<&Record>,
    now: i64,
    answer: Option<i64>,
) -> Decision {
    let moment = Moment {
        now: at(now),
        last_answer: answer.map(at),
    };
    let next = OperationId::new(&"press-7".parse().unwrap(), 2);
    decide(asked, record, moment, &Windows::default(), &next)
}

/// Long after the last answer: nothing but the record counts.
const LATER: i64 = 1000 + 86_400;

fn writes(decision: &Decision) -> bool {
    matches!(decision, Decision::Create(_) | Decision::Update(_))
}

#[test]
fn a_new_device_is_created_with_the_hub_that_allocation_proposes() {
    let Decision::Create(request) = decided(&asked(), None, 1000) else {
        panic!()
    };
    assert_eq!(request.proposed_hub.as_deref(), Some("west"));
    assert_eq!(request.reason, "InitialAssignment");
    assert_eq!(
        request.operation_id,
        OperationId::new(&asked().id, 2).as_str()
    );
    assert_eq!(request.api_version, "2019-03-31");
    assert_eq!(request.enrollment, asked().enrollment);
    assert_eq!(
        (request.credential.as_str(), request.verify_home),
        ("c0ffee", false)
    );
    assert_eq!(request.requested_at.0, at(1000));
}

#[test]
fn without_a_hub_the_request_says_why_nothing_is_proposed() {
    let mut asked = asked();
    asked.pool.members[0].available = false;
    let Decision::Create(request) = decided(&asked, None, 1000) else {
        panic!()
    };
    assert_eq!(
        (request.proposed_hub, request.reason.as_str()),
        (None, "NoHubAvailable")
    );
    asked.disabled = true;
    let Decision::Create(request) = decided(&asked, None, 1000) else {
        panic!()
    };
    assert_eq!(
        (request.proposed_hub, request.reason.as_str()),
        (None, "EnrollmentDisabled")
    );
}

#[test]
fn an_unchanged_device_is_answered_without_a_write() {
    let asked = asked();
    for seconds in [1000, 1030, LATER] {
        assert_eq!(
            decided(&asked, Some(&assigned(&asked)), seconds),
            Decision::Answer
        );
    }
}

#[test]
fn each_change_of_what_decides_is_a_new_request() {
    type Change = fn(&mut Asked);
    let changes: &[(&str, Change)] = &[
        ("another Enrollment", |it| {
            it.enrollment.name = "line-4".into();
        }),
        ("the Enrollment was made again", |it| {
            it.enrollment.uid = "other".into();
        }),
        ("another key", |it| {
            it.credential = "beef".into();
        }),
        ("a payload", |it| {
            it.payload_digest = Some("d".into());
        }),
        ("an older api-version", |it| {
            it.api_version = "2017-11-15".parse().unwrap();
        }),
        ("another weight", |it| {
            it.pool.members[0].weight = 2;
        }),
        ("another allocation policy", |it| {
            it.pool.policy = AllocationPolicy::Static;
        }),
        ("another reprovision policy", |it| {
            it.rule = Rule::Never;
        }),
        ("disabled", |it| {
            it.disabled = true;
        }),
    ];
    let before = asked();
    for (what, change) in changes {
        let mut now = before.clone();
        change(&mut now);
        // Also at once: what changed is no repetition.
        for seconds in [1001, LATER] {
            let decision = decided(&now, Some(&assigned(&before)), seconds);
            assert!(
                matches!(decision, Decision::Update(_)),
                "{what}: {decision:?}"
            );
        }
    }
}

#[test]
fn what_does_not_decide_changes_nothing() {
    let before = asked();
    let mut now = before.clone();
    now.api_version = "2021-06-01".parse().unwrap();
    now.pool.members[0].available = false;
    assert_eq!(
        decided(&now, Some(&assigned(&before)), LATER),
        Decision::Answer
    );
}

#[test]
fn an_open_operation_is_answered_again_whatever_changed() {
    let asked = asked();
    let mut other = asked.clone();
    other.credential = "beef".into();
    let mut requested = assigned(&asked);
    requested.operation_id = Some("the one before".into());
    let mut taken_up = assigned(&asked);
    taken_up.state = Some(RegistrationState::Assigning);
    let mut moving = assigned(&asked);
    moving.moving = true;
    let mut fresh = assigned(&asked);
    (fresh.state, fresh.operation_id) = (None, None);
    for record in [requested, taken_up, moving, fresh] {
        assert!(record.open_operation().is_some());
        assert_eq!(
            decided(&other, Some(&record), LATER),
            Decision::Answer,
            "{record:?}"
        );
    }
}

#[test]
fn a_reset_is_done_for_every_registration_but_not_for_a_repetition() {
    let mut asked = asked();
    asked.rule = Rule::ResetData;
    let record = assigned(&asked);
    assert_eq!(decided(&asked, Some(&record), 1059), Decision::Answer);
    let Decision::Update(request) = decided(&asked, Some(&record), 1061) else {
        panic!()
    };
    assert_eq!(
        (request.reason.as_str(), request.verify_home),
        ("ResetData", false)
    );
    assert_eq!(
        request.proposed_hub, None,
        "the controller decides about devices with a home"
    );
}

#[test]
fn a_device_that_comes_back_soon_has_its_home_verified_once_in_ten_minutes() {
    let asked = asked();
    let mut record = assigned(&asked);
    let verifies = |decision: Decision| match decision {
        Decision::Update(request) => request.verify_home,
        Decision::Answer | Decision::Create(_) | Decision::AwaitDeletion => false,
    };
    assert!(
        !verifies(decided(&asked, Some(&record), 1059)),
        "a repetition"
    );
    assert!(
        verifies(decided(&asked, Some(&record), 1061)),
        "within five minutes of its answer"
    );
    assert!(
        !verifies(decided(&asked, Some(&record), 1301)),
        "later: a usual check-in"
    );
    assert!(verifies(decided_after(
        &asked,
        Some(&record),
        LATER,
        Some(LATER - 10)
    )));
    assert!(!verifies(decided_after(
        &asked,
        Some(&record),
        LATER,
        Some(LATER - 301)
    )));
    record.home_checked = Some(at(LATER - 599));
    assert!(!verifies(decided_after(
        &asked,
        Some(&record),
        LATER,
        Some(LATER - 10)
    )));
    record.home_checked = Some(at(LATER - 601));
    assert!(verifies(decided_after(
        &asked,
        Some(&record),
        LATER,
        Some(LATER - 10)
    )));
}

#[test]
fn a_device_that_is_refused_for_good_writes_nothing() {
    let mut asked = asked();
    asked.disabled = true;
    let mut record = assigned(&asked);
    record.state = Some(RegistrationState::Disabled);
    for seconds in [1001, 1100, LATER] {
        assert_eq!(decided(&asked, Some(&record), seconds), Decision::Answer);
    }
    asked.disabled = false;
    assert!(
        writes(&decided(&asked, Some(&record), 1001)),
        "enabled again"
    );
}

#[test]
fn a_failed_device_may_try_again_after_a_minute() {
    let asked = asked();
    let mut record = assigned(&asked);
    (record.state, record.home) = (Some(RegistrationState::Failed), None);
    assert_eq!(decided(&asked, Some(&record), 1059), Decision::Answer);
    let Decision::Update(request) = decided(&asked, Some(&record), 1061) else {
        panic!()
    };
    assert_eq!(request.proposed_hub.as_deref(), Some("west"));
    record.cleanup = vec!["uid-west".into()];
    let Decision::Update(request) = decided(&asked, Some(&record), 1061) else {
        panic!()
    };
    assert_eq!(
        request.proposed_hub, None,
        "a hub that is being cleaned up is not chosen"
    );
}

#[test]
fn a_record_that_is_going_away_is_waited_for() {
    let mut record = assigned(&asked());
    record.deleting = true;
    assert_eq!(
        decided(&asked(), Some(&record), 1001),
        Decision::AwaitDeletion
    );
}

#[test]
fn clocks_that_differ_a_little_do_not_matter() {
    let mut asked = asked();
    asked.rule = Rule::ResetData;
    assert_eq!(
        decided(&asked, Some(&assigned(&asked)), 990),
        Decision::Answer
    );
}
