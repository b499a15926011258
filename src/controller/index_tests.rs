//! The index against what it should say.

use serde_json::{Value, json};

use super::*;
use crate::api::v1alpha1::{AllocationPolicy, HubRef};
use crate::domain::allocation::Member;

fn registration(name: &str, spec: &Value, status: &Value) -> DeviceRegistration {
    let mut request = json!({"operationId": "5.o", "apiVersion": "2021-06-01",
        "enrollment": {"name": "line", "uid": "enr"}, "credential": "c", "reason": "r",
        "requestedAt": "2026-11-23T06:20:33.000000Z"});
    if let Some(fields) = spec.as_object() {
        request.as_object_mut().unwrap().extend(fields.clone());
    }
    serde_json::from_value(json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
        "metadata": {"namespace": "plant", "name": name, "uid": format!("uid-{name}")},
        "spec": {"registrationId": name, "request": request},
        "status": status,
    }))
    .unwrap()
}

fn hub_ref(name: &str) -> Value {
    json!({"name": name, "uid": format!("uid-{name}"), "hostName": format!("{name}.example.com")})
}

fn at(hub: &str) -> Value {
    json!({"state": "Assigned", "home": hub_ref(hub), "deviceId": "press",
        "operationId": "5.o", "placementHash": "old"})
}

fn hub(name: &str) -> IoTHub {
    serde_json::from_value(json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub",
        "metadata": {"namespace": "plant", "name": name, "uid": format!("uid-{name}")},
        "spec": {"hostName": format!("{name}.example.com"),
            "connection": {"connectionStringSecretRef": {"name": "s"}}},
    }))
    .unwrap()
}

fn only(name: &str) -> Evaluation {
    let hub: HubRef = serde_json::from_value(hub_ref(name)).unwrap();
    Evaluation {
        pool: Pool {
            policy: AllocationPolicy::Static,
            members: vec![Member {
                hub,
                weight: 1,
                available: true,
            }],
        },
        policy: None,
    }
}

#[test]
fn a_device_is_owned_where_it_lives_and_where_it_goes() {
    let index = Index::default();
    let mut status = at("west");
    index.apply(&registration("a", &json!({}), &status));
    let owner = |host: &str| index.owner_of(host, "press");
    assert_eq!(owner("west.example.com").as_deref(), Some("uid-a"));
    assert_eq!(owner("east.example.com"), None);

    status["transfer"] = json!({"id": "t", "phase": "Open", "data": "Migrate", "policy": "p",
        "from": {"hub": hub_ref("west"), "generationId": "g", "original": {"enabled": true}},
        "to": {"hub": hub_ref("east")}, "placementHash": "h",
        "startedAt": "2026-11-23T06:20:33.000000Z"});
    index.apply(&registration("a", &json!({}), &status));
    assert_eq!(owner("east.example.com").as_deref(), Some("uid-a"));
    assert!(index.refers("uid-a", "uid-east") && index.refers("uid-a", "uid-west"));

    index.apply(&registration("a", &json!({}), &at("east")));
    assert_eq!(owner("west.example.com"), None);
    assert!(!index.refers("uid-a", "uid-west"));
    index.remove(&registration("a", &json!({}), &at("east")));
    assert_eq!(owner("east.example.com"), None);
    assert!(index.read().hubs.is_empty() && index.read().owners.is_empty());
}

#[test]
fn a_hub_is_referred_to_by_homes_and_by_requests_that_propose_it() {
    let index = Index::default();
    index.apply(&registration("a", &json!({}), &at("west")));
    index.apply(&registration(
        "b",
        &json!({"proposedHub": "west"}),
        &json!({}),
    ));
    let settled = registration("c", &json!({"proposedHub": "west"}), &at("east"));
    index.apply(&settled);
    assert_eq!(index.referring(&hub("west")).0, 2);
    assert_eq!(index.referring(&hub("east")), (1, Some("c".into())));
    assert_eq!(index.homes("uid-west"), 1);
    let changed = index.take_changed();
    assert_eq!(changed.hubs.len(), 2);
    assert!(index.take_changed().hubs.is_empty());
}

#[test]
fn counters_follow_every_change() {
    let index = Index::default();
    for (name, status) in [("a", at("west")), ("b", at("west")), ("c", json!({}))] {
        index.apply(&registration(name, &json!({}), &status));
    }
    index.apply(&registration("c", &json!({}), &json!({"state": "Failed"})));
    index.apply(&registration("b", &json!({}), &at("east")));
    let (counts, hubs) = index.counts("enr");
    assert_eq!(
        (
            counts.total,
            counts.assigned,
            counts.failed,
            counts.assigning
        ),
        (3, 2, 1, 0)
    );
    let hubs: Vec<_> = hubs
        .iter()
        .map(|count| (count.hub.as_str(), count.registrations))
        .collect();
    assert_eq!(hubs, [("east.example.com", 1), ("west.example.com", 1)]);
}

#[test]
fn what_would_move_follows_the_hubs_and_the_registrations() {
    let index = Index::default();
    index.apply(&registration("a", &json!({}), &at("west")));
    index.apply(&registration(
        "b",
        &json!({"apiVersion": "2017-11-15"}),
        &at("west"),
    ));
    let would_move = || index.counts("enr").0.would_move;
    index.evaluate("enr", only("west"));
    assert_eq!(would_move(), 0);
    index.evaluate("enr", only("east"));
    assert_eq!(would_move(), 1, "the sticky device stays");
    index.apply(&registration("c", &json!({}), &at("west")));
    assert_eq!(would_move(), 2);
    index.apply(&registration("a", &json!({}), &at("east")));
    assert_eq!(would_move(), 1);
    let never = Evaluation {
        policy: Some(ReprovisionPolicy::Never),
        ..only("east")
    };
    index.evaluate("enr", never);
    assert_eq!(would_move(), 0);
}

#[test]
fn only_what_is_not_at_rest_is_set_going() {
    let index = Index::default();
    index.apply(&registration("a", &json!({}), &at("west")));
    index.apply(&registration("b", &json!({}), &json!({"state": "Failed"})));
    index.apply(&registration(
        "c",
        &json!({"operationId": "5.p"}),
        &at("west"),
    ));
    let names = |refs: Vec<ObjectRef<DeviceRegistration>>| {
        let mut names: Vec<_> = refs.into_iter().map(|object| object.name).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(index.restless_in("plant")), ["b", "c"]);
    assert_eq!(names(index.restless_of("plant", "enr")), ["b", "c"]);
    assert!(index.restless_of("plant", "other").is_empty());
    assert_eq!(names(index.members("enr")), ["a", "b", "c"]);
}

#[test]
fn homes_are_visited_in_turn() {
    let index = Index::default();
    for name in ["a", "b", "c"] {
        index.apply(&registration(name, &json!({}), &at("west")));
    }
    let first = index.some_homes("uid-west", "", 2);
    assert_eq!(first, ["uid-a", "uid-b"]);
    assert_eq!(index.some_homes("uid-west", "uid-b", 2), ["uid-c", "uid-a"]);
    assert!(index.some_homes("uid-east", "", 2).is_empty());
}

#[test]
fn what_is_not_at_rest_is_counted_and_all_by_state() {
    let index = Index::default();
    let moving = |name: &str, since: &str| {
        let mut status = at("west");
        status["state"] = "Assigning".into();
        status["transfer"] = json!({"id": "t", "phase": "Open", "data": "Migrate", "policy": "p",
            "from": {"hub": hub_ref("west"), "generationId": "g", "original": {"enabled": true}},
            "to": {"hub": hub_ref("east")}, "placementHash": "h", "startedAt": since});
        registration(name, &json!({}), &status)
    };
    let mut left_behind = at("east");
    left_behind["cleanup"] = json!([{"name": "west", "uid": "uid-west",
        "hostName": "west.example.com", "since": "2026-11-23T06:20:33.000000Z"}]);
    index.apply(&registration("rests", &json!({}), &at("west")));
    index.apply(&registration("left", &json!({}), &left_behind));
    index.apply(&moving("young", "2026-11-23T09:00:00.000000Z"));
    index.apply(&moving("old", "2026-11-23T08:00:00.000000Z"));
    let totals = index.totals();
    assert_eq!((totals.total, totals.assigned, totals.assigning), (4, 2, 2));
    let unsettled = index.unsettled();
    assert_eq!(
        (unsettled.all, unsettled.moves, unsettled.to_clean_up),
        (3, 2, 1)
    );
    assert_eq!(unsettled.oldest_move, "2026-11-23T08:00:00Z".parse().ok());
    index.evaluate("enr", only("north"));
    assert_eq!(index.totals().would_move, 4);
}
