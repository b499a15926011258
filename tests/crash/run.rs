//! One plan from beginning to end.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use rehome::api::v1alpha1::{DeviceRegistration, RegistrationState};
use rehome::controller::context::Context;
use rehome::controller::registration::{self, reconcile};
use rehome::controller::sweep::Sweep;
use rehome::domain::identity::Mark;
use rehome::domain::transfer::Mutant;
use rehome::hub::record::Record;

use crate::device::holds;
use crate::fault::{Fault, Kind};
use crate::ground::{Ground, HUBS};
use crate::incarnation;
use crate::invariants;
use crate::people::{Act, MODULE};
use crate::scenario::{End, Scenario, Twin};
use crate::wire::Actor;
use crate::world::World;

/// Passes after which a registration counts as never settling.
const PASSES: usize = 60;
/// Passes without an effect after which the controller counts as waiting for somebody.
const WAITING: usize = 14;
/// Real time after which a plan counts as hanging.
const HANGS: Duration = Duration::from_secs(120);

/// Older than the sweep leaves a leftover alone.
const LEFTOVERS_ARE_OLD: Duration = Duration::from_mins(16);

/// What came of a plan.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    /// Effects of the first controller, each with the number of versions before it.
    pub(crate) effects: Vec<(String, usize)>,
    pub(crate) log: Vec<String>,
    /// Disabled leftovers that the sweep is for.
    pub(crate) leftovers: usize,
}

/// How one pass ended.
enum Pass {
    Settled,
    Waits,
    /// It ended, and the object is another version than before.
    Changed,
    Killed,
    Gone,
}

struct Run {
    world: Arc<World>,
    context: Arc<Context>,
}

pub(crate) async fn run(
    ground: &Arc<Ground>,
    scenario: &'static Scenario,
    fault: Option<Fault>,
    name: &str,
    mutant: Option<Mutant>,
) -> Outcome {
    let world = World::new(ground, name, mutant);
    let context = incarnation::start(&world, Actor::First);
    let plan = Run {
        world: Arc::clone(&world),
        context,
    };
    let played = tokio::time::timeout(HANGS, plan.play(scenario, fault)).await;
    let leftovers = played.unwrap_or_else(|_| {
        world.violation("the plan hangs");
        0
    });
    let mut state = world.state();
    Outcome {
        violations: std::mem::take(&mut state.violations),
        effects: std::mem::take(&mut state.effects),
        log: std::mem::take(&mut state.log),
        leftovers,
    }
}

impl Run {
    async fn play(mut self, scenario: &Scenario, fault: Option<Fault>) -> usize {
        for act in scenario.before {
            self.world.act(act.clone()).await;
            if matches!(act, Act::Register(..)) {
                self.drive().await;
            }
        }
        {
            let mut state = self.world.state();
            state.recording = true;
            state.fault = fault;
            state.during = scenario.during.to_vec();
            state.following = scenario.after.to_vec();
            state.versions = state.object.iter().cloned().collect();
        }
        for act in scenario.acts {
            self.world.act(act.clone()).await;
            self.drive().await;
        }
        self.begin_late_second(fault).await;
        while self.world.owes() {
            self.world.settle_debts().await;
            self.drive().await;
        }
        self.check_rest(&scenario.end).await
    }

    /// Passes until there is nothing to do, or the controller waits for somebody.
    async fn drive(&mut self) {
        let mut pause = Duration::from_secs(1);
        let mut idle = 0;
        for _ in 0..PASSES {
            let before = self.progress();
            match self.pass().await {
                Pass::Settled | Pass::Gone => return,
                Pass::Killed => {
                    self.world.note("a new controller begins");
                    self.context = incarnation::start(&self.world, Actor::First);
                }
                Pass::Changed => continue,
                Pass::Waits => {}
            }
            idle = if self.progress() == before {
                idle + 1
            } else {
                0
            };
            if idle == 0 {
                pause = Duration::from_secs(1);
            }
            if idle == WAITING {
                return;
            }
            self.world.pass_time(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
        }
        self.world.violation("liveness: it does not settle");
    }

    fn progress(&self) -> usize {
        self.world.state().effects.len()
    }

    async fn pass(&self) -> Pass {
        let Some(object) = self.world.live().await else {
            return Pass::Gone;
        };
        let (object, seen) = (Arc::new(object), self.version());
        let work = reconcile(Arc::clone(&object), Arc::clone(&self.context));
        let outcome = tokio::select! {
            biased;
            () = self.world.killed.notified() => return Pass::Killed,
            outcome = work => outcome,
        };
        let action = outcome.unwrap_or_else(|error| {
            self.world.note(format!("   failed: {error}"));
            registration::on_error(object, &error, Arc::clone(&self.context))
        });
        if self.version() != seen {
            // The watch brings every version, our own too.
            Pass::Changed
        } else if action == Action::await_change() {
            Pass::Settled
        } else {
            Pass::Waits
        }
    }

    /// The version that the API server holds.
    fn version(&self) -> Option<String> {
        self.world
            .state()
            .object
            .as_ref()
            .and_then(DeviceRegistration::resource_version)
    }

    /// A second controller that makes its pass when everything is over.
    async fn begin_late_second(&mut self, fault: Option<Fault>) {
        let over = self.progress() + 1;
        if let Some(Fault {
            at,
            kind: Kind::Second { back, .. },
        }) = fault
            && at >= over
        {
            self.world.note(format!(
                "   second controller, {back} versions back, at the end"
            ));
            self.world.start_second(over, back, None).await;
            self.drive().await;
        }
    }

    /// Everything that must be so once nothing happens any more.
    async fn check_rest(&mut self, end: &End) -> usize {
        invariants::check(&self.world).await;
        self.check_silence().await;
        let records = invariants::records(&self.world).await;
        let mut leftovers = 0;
        for (hub, record) in records.iter().enumerate() {
            match record {
                Some(record) if end.home != Some(hub) => {
                    leftovers += self.check_leftover(hub, record);
                }
                Some(record) => self.check_home(record, end),
                None if end.home == Some(hub) => {
                    self.world
                        .violation(format!("I5: the device is not at {}", HUBS[hub]));
                }
                None => {}
            }
        }
        self.check_status(end);
        if leftovers > 0 {
            self.check_sweep(end).await;
        }
        leftovers
    }

    /// I7: the sweep removes what is left, once it is old enough.
    async fn check_sweep(&mut self, end: &End) {
        let context = incarnation::start(&self.world, Actor::First);
        for uid in std::mem::take(&mut self.world.state().departed) {
            context.departed.note(uid);
        }
        let mut sweep = Sweep::default();
        sweep.round(&context).await;
        self.world.clock.advance(LEFTOVERS_ARE_OLD);
        sweep.round(&context).await;
        for (hub, record) in invariants::records(&self.world).await.iter().enumerate() {
            if record.is_some() && end.home != Some(hub) {
                self.world.violation(format!(
                    "I7: the sweep leaves the leftover at {}",
                    HUBS[hub]
                ));
            }
        }
    }

    /// A further pass makes no call and no write.
    async fn check_silence(&mut self) {
        self.context = incarnation::start(&self.world, Actor::First);
        let calls = self.world.state().calls;
        let before = self.progress();
        match self.pass().await {
            Pass::Settled | Pass::Gone => {}
            Pass::Waits | Pass::Changed | Pass::Killed => {
                self.world.violation("liveness: it is not settled");
            }
        }
        if self.progress() > before || self.world.state().calls > calls {
            self.world.violation("liveness: settled, and yet it calls");
        }
    }

    /// I7: what is left elsewhere is inert and marked, so that the sweep finds it.
    fn check_leftover(&self, hub: usize, record: &Record) -> usize {
        let mark = record
            .identity
            .status_reason
            .as_deref()
            .and_then(Mark::parse);
        if record.identity.enabled || mark.is_none() {
            let state = if record.identity.enabled {
                "an enabled"
            } else {
                "an unmarked"
            };
            self.world
                .violation(format!("I7: {state} identity is left at {}", HUBS[hub]));
        }
        1
    }

    fn check_home(&self, record: &Record, end: &End) {
        let (credential, acknowledged, status) = {
            let state = self.world.state();
            let status = state
                .object
                .as_ref()
                .and_then(|object| object.status.clone());
            (
                state.credential.clone(),
                state.acknowledged.clone(),
                status.unwrap_or_default(),
            )
        };
        let identity = &record.identity;
        if identity.enabled == end.disabled {
            let is = if identity.enabled {
                "enabled"
            } else {
                "disabled"
            };
            let reason = identity.status_reason.as_deref().unwrap_or_default();
            self.world
                .violation(format!("I7: the home is {is} ({reason})"));
        }
        if status.generation_id.as_ref() != Some(&identity.generation_id) {
            self.world
                .violation("I5: the status names another generation of the home");
        }
        if !holds(&identity.authentication, &credential.unwrap()) {
            self.world
                .violation("I6: the home does not hold what was attested");
        }
        for write in acknowledged {
            let own = write.generation_id == identity.generation_id;
            let module = write.to_module.then_some(MODULE);
            let there = record.party(module).is_some_and(|party| {
                let (twin, key) = (party.twin, &write.key);
                if write.by_device {
                    twin.reported.values.contains_key(key)
                } else {
                    twin.tags.contains_key(key) && twin.desired.values.contains_key(key)
                }
            });
            let from = HUBS[write.hub];
            if !there && (own || end.twin == Twin::Everything) {
                self.world
                    .violation(format!("I4: write {} to {from} is lost", write.key));
            } else if there && !own && end.twin == Twin::Fresh {
                self.world
                    .violation(format!("I5: write {} to {from} survived", write.key));
            }
        }
    }

    fn check_status(&self, end: &End) {
        let object = self.world.state().object.clone();
        let Some(object) = object else {
            if end.home.is_some() {
                self.world.violation("I5: the registration is gone");
            }
            return;
        };
        let status = object.status.unwrap_or_default();
        if end.home.is_none() {
            return self
                .world
                .violation("liveness: the registration is still there");
        }
        let home = end.home.map(|hub| self.world.hubs[hub].host_name.clone());
        if status.state != Some(RegistrationState::Assigned)
            || status.assigned_hub != home
            || status.substatus != end.substatus
        {
            let told = (
                status.state,
                status.assigned_hub,
                status.substatus,
                status.error_message,
            );
            self.world.violation(format!("I5: the answer is {told:?}"));
        }
        if status.transfer.is_some() || !status.cleanup.is_empty() {
            self.world
                .violation("I7: a transfer or a cleanup is open at rest");
        }
    }
}
