//! Which hub a device gets. To add an allocation policy, extend [`AllocationPolicy`] and `rank`.

use aws_lc_rs::digest::{SHA256, digest};

use kube::core::{Selector, SelectorExt as _};
use kube::{Resource as _, ResourceExt as _};

use crate::api::v1alpha1::{
    AllocationPolicy, AllocationSpec, ConditionType, HubRef, IoTHub, Reason, is_true,
};

/// A hub that an Enrollment may place devices on.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The hub.
    pub hub: HubRef,
    /// Relative share, 1 to 1000.
    pub weight: u32,
    /// Ready and not cordoned: may take devices now.
    pub available: bool,
}

/// What allocation has to choose from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pool {
    /// How it chooses.
    pub policy: AllocationPolicy,
    /// The Enrollment's hubs, or all hubs of the namespace.
    pub members: Vec<Member>,
}

/// What allocation says for one device.
#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    /// The device stays at its home. `settled` is false when it should be asked again at the next
    /// request although nothing changes.
    Stay {
        /// Why.
        reason: Reason,
        /// Whether the answer holds until the inputs change.
        settled: bool,
    },
    /// The device goes to this hub.
    Go(HubRef),
    /// No hub can take the device now.
    Nowhere(Reason),
}

impl HubRef {
    /// The hub of an `IoTHub` that the API server holds.
    pub fn of(hub: &IoTHub) -> Self {
        Self {
            name: hub.name_any(),
            uid: hub.meta().uid.clone().unwrap_or_default(),
            host_name: hub.spec.host_name.clone(),
        }
    }
}

impl Member {
    /// The hub as a member.
    pub fn of(hub: &IoTHub) -> Self {
        let ready = hub
            .status
            .as_ref()
            .is_some_and(|status| is_true(&status.conditions, ConditionType::Ready));
        let going = hub.meta().deletion_timestamp.is_some();
        Self {
            hub: HubRef::of(hub),
            weight: hub.spec.weight(),
            available: ready && !going && !hub.spec.is_cordoned(),
        }
    }
}

impl Pool {
    /// The members among the hubs of the Enrollment's namespace. A selector that cannot be read
    /// selects nothing; the Enrollment's conditions say so.
    pub fn of<'a>(
        allocation: Option<&AllocationSpec>,
        hubs: impl IntoIterator<Item = &'a IoTHub>,
    ) -> Self {
        let none = AllocationSpec::default();
        let AllocationSpec {
            policy,
            hubs: named,
            hub_selector,
        } = allocation.unwrap_or(&none);
        let selector = hub_selector.clone().map(Selector::try_from);
        let is_member = |hub: &&IoTHub| match (named, &selector) {
            (Some(names), _) => names.contains(&hub.name_any()),
            (None, Some(Ok(selector))) => selector.matches(hub.labels()),
            (None, Some(Err(_))) => false,
            (None, None) => true,
        };
        let members = hubs.into_iter().filter(is_member).map(Member::of).collect();
        Self {
            policy: policy.unwrap_or_default(),
            members,
        }
    }

    /// Hash of the placement inputs: policy, members and weights. A hub that blinks or is cordoned
    /// does not change it.
    pub fn hash(&self) -> String {
        let mut lines: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{} {}", member.hub.host_name, member.weight))
            .collect();
        lines.sort_unstable();
        let text = format!("{:?}\n{}", self.policy, lines.join("\n"));
        super::hex(&digest(&SHA256, text.as_bytes()).as_ref()[..16])
    }

    /// Where the device of that registration id goes. `taken` tells hubs that must not be chosen,
    /// such as those that are still being cleaned up.
    pub fn place(
        &self,
        registration_id: &str,
        home: Option<&HubRef>,
        taken: impl Fn(&HubRef) -> bool,
    ) -> Placement {
        let ranked = self.rank(registration_id);
        let Some(wanted) = ranked.first() else {
            return match home {
                Some(_) => Placement::Stay {
                    reason: Reason::NoHubs,
                    settled: false,
                },
                None => Placement::Nowhere(Reason::NoHubs),
            };
        };
        let is_open = |member: &&&Member| member.available && !taken(&member.hub);
        let home_is_member =
            home.is_some_and(|home| ranked.iter().any(|member| member.hub.uid == home.uid));
        match home {
            Some(home) if wanted.hub.uid == home.uid => Placement::Stay {
                reason: Reason::SameHub,
                settled: true,
            },
            Some(_) if home_is_member && !is_open(&wanted) => Placement::Stay {
                reason: Reason::WantedHubUnavailable,
                settled: false,
            },
            Some(_) if home_is_member => Placement::Go(wanted.hub.clone()),
            _ => match ranked.iter().find(is_open) {
                Some(member) => Placement::Go(member.hub.clone()),
                None if home.is_some() => Placement::Stay {
                    reason: Reason::NoHubAvailable,
                    settled: false,
                },
                None => Placement::Nowhere(Reason::NoHubAvailable),
            },
        }
    }

    /// As [`Pool::place`] for a device with a home that was evaluated before: it is evaluated again
    /// only when the inputs changed or the home is no longer a member.
    pub fn replace(
        &self,
        registration_id: &str,
        home: &HubRef,
        evaluated_with: Option<&str>,
        taken: impl Fn(&HubRef) -> bool,
    ) -> Placement {
        let is_member = self.members.iter().any(|member| member.hub.uid == home.uid);
        if is_member && evaluated_with == Some(self.hash().as_str()) {
            return Placement::Stay {
                reason: Reason::SameHub,
                settled: true,
            };
        }
        self.place(registration_id, Some(home), taken)
    }

    /// Members in the order in which the device of that registration id would have them.
    pub fn rank(&self, registration_id: &str) -> Vec<&Member> {
        let mut members: Vec<_> = self.members.iter().collect();
        match self.policy {
            AllocationPolicy::Static => members.truncate(1),
            AllocationPolicy::Hashed => {
                let id = registration_id.to_ascii_lowercase();
                members.sort_by(|one, other| {
                    distance(one, &id)
                        .total_cmp(&distance(other, &id))
                        .then_with(|| one.hub.host_name.cmp(&other.hub.host_name))
                });
            }
        }
        members
    }
}

/// Weighted rendezvous hashing: each hub draws a number for the device, the smallest wins. Adding a
/// hub moves only that hub's share, and no other device.
///
/// With x the first 8 bytes (big-endian) of SHA-256(`hostName`, one zero byte, lower-cased
/// registration id) and u = (x + ½) / 2⁶⁴, the draw is −ln(u) / weight.
fn distance(member: &Member, registration_id: &str) -> f64 {
    let text = [
        member.hub.host_name.as_bytes(),
        &[0],
        registration_id.as_bytes(),
    ]
    .concat();
    let hash = digest(&SHA256, &text);
    let x = hash.as_ref()[..8]
        .iter()
        .fold(0u64, |x, byte| x << 8 | u64::from(*byte));
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are plenty to draw with"
    )]
    let u = (x as f64 + 0.5) / 2f64.powi(64);
    -u.ln() / f64::from(member.weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, weight: u32) -> Member {
        let hub = HubRef {
            name: name.into(),
            uid: format!("uid-{name}"),
            host_name: format!("{name}.example"),
        };
        Member {
            hub,
            weight,
            available: true,
        }
    }

    fn hashed(members: Vec<Member>) -> Pool {
        Pool {
            policy: AllocationPolicy::Hashed,
            members,
        }
    }

    fn chosen(pool: &Pool, id: &str) -> String {
        match pool.place(id, None, |_| false) {
            Placement::Go(hub) => hub.name,
            Placement::Stay { .. } | Placement::Nowhere(_) => panic!("no hub for {id}"),
        }
    }

    #[test]
    fn the_hash_function_never_changes() {
        let pool = hashed(vec![
            member("east", 1),
            member("west", 1),
            member("north", 3),
        ]);
        let chosen: Vec<_> = ["press-7", "Press-7", "sn:aa.bb_cc-01", "device-001", "x"]
            .map(|id| chosen(&pool, id))
            .into();
        assert_eq!(chosen, ["north", "north", "east", "north", "west"]);
    }

    #[test]
    fn devices_spread_by_weight() {
        let pool = hashed(vec![member("one", 1), member("three", 3)]);
        let share = (0..4000)
            .filter(|n| chosen(&pool, &format!("device-{n}")) == "three")
            .count();
        assert!(
            (2850..3150).contains(&share),
            "{share} of 4000 on the hub of weight 3 of 4"
        );
    }

    #[test]
    fn adding_a_hub_moves_only_its_share() {
        let before = hashed(vec![member("a", 1), member("b", 1)]);
        let after = hashed(vec![member("a", 1), member("b", 1), member("c", 1)]);
        let mut moved = 0;
        for n in 0..3000 {
            let id = format!("device-{n}");
            let (old, new) = (chosen(&before, &id), chosen(&after, &id));
            if old != new {
                assert_eq!(new, "c", "{id} moved between hubs that were there before");
                moved += 1;
            }
        }
        assert!((850..1150).contains(&moved), "{moved} of 3000 moved");
    }

    #[test]
    fn case_does_not_matter_and_neither_does_the_order_of_members() {
        let pool = hashed(vec![member("a", 1), member("b", 1)]);
        let turned = hashed(vec![member("b", 1), member("a", 1)]);
        for n in 0..50 {
            assert_eq!(
                chosen(&pool, &format!("Dev-{n}")),
                chosen(&turned, &format!("dev-{n}"))
            );
        }
        assert_eq!(pool.hash(), turned.hash());
    }

    #[test]
    fn a_device_stays_when_the_wanted_hub_is_not_available() {
        let mut pool = hashed(vec![member("a", 1000), member("b", 1)]);
        let home = pool.members[1].hub.clone();
        assert_eq!(chosen(&pool, "device-1"), "a");
        pool.members[0].available = false;
        assert_eq!(
            pool.place("device-1", Some(&home), |_| false),
            Placement::Stay {
                reason: Reason::WantedHubUnavailable,
                settled: false
            }
        );
        assert_eq!(pool.place("device-1", None, |_| false), Placement::Go(home));
    }

    #[test]
    fn a_device_leaves_a_hub_that_is_no_longer_a_member() {
        let pool = hashed(vec![member("a", 1)]);
        let gone = member("gone", 1).hub;
        assert_eq!(
            pool.place("d", Some(&gone), |_| false),
            Placement::Go(pool.members[0].hub.clone())
        );
    }

    #[test]
    fn a_hub_that_blinked_does_not_move_anybody() {
        let pool = hashed(vec![member("a", 1000), member("b", 1)]);
        let fallback = pool.members[1].hub.clone();
        assert_eq!(
            pool.replace("device-1", &fallback, Some(&pool.hash()), |_| false),
            Placement::Stay {
                reason: Reason::SameHub,
                settled: true
            }
        );
        assert!(matches!(
            pool.replace("device-1", &fallback, None, |_| false),
            Placement::Go(_)
        ));
    }

    #[test]
    fn a_hub_under_cleanup_is_never_chosen() {
        let pool = hashed(vec![member("a", 1000), member("b", 1)]);
        let Placement::Go(hub) = pool.place("d", None, |hub| hub.name == "a") else {
            panic!()
        };
        assert_eq!(hub.name, "b");
    }

    #[test]
    fn weights_and_members_are_inputs_and_availability_is_not() {
        let mut pool = hashed(vec![member("a", 1), member("b", 1)]);
        let hash = pool.hash();
        pool.members[0].available = false;
        assert_eq!(pool.hash(), hash);
        pool.members[0].weight = 2;
        assert_ne!(pool.hash(), hash);
    }

    #[test]
    fn no_hub_at_all_is_told_apart_from_none_available() {
        assert_eq!(
            hashed(vec![]).place("d", None, |_| false),
            Placement::Nowhere(Reason::NoHubs)
        );
        let mut pool = hashed(vec![member("a", 1)]);
        pool.members[0].available = false;
        assert_eq!(
            pool.place("d", None, |_| false),
            Placement::Nowhere(Reason::NoHubAvailable)
        );
    }
}
