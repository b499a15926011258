//! One plan's world: its own hubs behind the shared `IoTHub`s, its own registration, and every
//! request that passes between them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures::future::pending;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::ResourceExt as _;
use kube::client::Body;
use rehome::api::v1alpha1::{DeviceRegistration, Enrollment};
use rehome::clock::Clock as _;
use rehome::domain::attestation::DeviceCredential;
use rehome::domain::ids::{DeviceId, RegistrationId};
use rehome::domain::object_name::object_name;
use rehome::domain::sas::SasToken;
use rehome::domain::transfer::Mutant;
use rehome::hub::rest::{Policies, router};
use rehome::hub::store::MemoryStore;
use rehome::hub::{Hub, Settings};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use crate::clock::PlanClock;
use crate::fault::{Due, Fault, Kind};
use crate::ground::{Ground, HUBS, SERVICE_KEY, host_name};
use crate::incarnation::{self, CALL_LIFE, CALL_TIMEOUT};
use crate::invariants::{self, Floors};
use crate::people::{Acknowledged, Act};
use crate::wire::{Actor, Message, NoReply};

/// Devices that a hub of a plan takes.
pub(crate) const ROOM: u64 = 2;

/// A hub of the plan: the product's core behind the product's service API.
pub(crate) struct Site {
    pub(crate) host_name: String,
    pub(crate) core: Arc<Hub>,
    pub(crate) reachable: AtomicBool,
    router: Router,
}

pub(crate) struct World {
    pub(crate) ground: Arc<Ground>,
    pub(crate) clock: Arc<PlanClock>,
    pub(crate) hubs: Vec<Site>,
    pub(crate) id: RegistrationId,
    pub(crate) device: DeviceId,
    /// Name of the `DeviceRegistration`.
    pub(crate) name: String,
    pub(crate) mutant: Option<Mutant>,
    state: Mutex<State>,
    /// The first controller is to die.
    pub(crate) killed: Notify,
    first_goes_on: Notify,
    second_goes_on: Notify,
}

/// What the plan knows and remembers.
#[derive(Default)]
pub(crate) struct State {
    /// Whether effects are counted, and faults come.
    pub(crate) recording: bool,
    pub(crate) fault: Option<Fault>,
    /// Effects of both controllers.
    pub(crate) attempts: usize,
    /// What happens at the effect of that number, whoever has it.
    pub(crate) during: Vec<(usize, Act)>,
    /// Effects of the first controller, and how many versions of the object there were before.
    pub(crate) effects: Vec<(String, usize)>,
    /// What happens after the effect of that number.
    pub(crate) following: Vec<(usize, Act)>,
    /// Everything that happened, for people.
    pub(crate) log: Vec<String>,
    late: Vec<Late>,
    held: Option<Late>,
    /// The object as it was last written; none when it is gone.
    pub(crate) object: Option<DeviceRegistration>,
    /// Uids of registrations that are gone.
    pub(crate) departed: Vec<String>,
    /// Its versions since recording began.
    pub(crate) versions: Vec<DeviceRegistration>,
    /// Where the device was last told to live.
    pub(crate) told: Option<usize>,
    /// Everywhere that this registration told it.
    pub(crate) told_ever: HashSet<usize>,
    /// What the last request attested.
    pub(crate) credential: Option<DeviceCredential>,
    /// The certificate that the device has now.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// The Enrollment that is for this device alone.
    pub(crate) own: Option<Enrollment>,
    pub(crate) requests: usize,
    pub(crate) writes: usize,
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) floors: Floors,
    pub(crate) second_was_held: bool,
    /// Requests of controllers, reads included.
    pub(crate) calls: usize,
    /// Somebody else removed the identity.
    pub(crate) vanished: bool,
    pub(crate) violations: Vec<String>,
}

/// A request that is held back. `message` is none for a second controller as a whole.
struct Late {
    message: Option<Message>,
    due: usize,
    /// It cannot act later than this.
    until: Duration,
}

impl World {
    pub(crate) fn new(ground: &Arc<Ground>, name: &str, mutant: Option<Mutant>) -> Arc<Self> {
        let clock = Arc::new(PlanClock::default());
        let hubs = HUBS.iter().map(|hub| Site::new(hub, &clock)).collect();
        let id: RegistrationId = name.parse().unwrap();
        Arc::new(Self {
            ground: Arc::clone(ground),
            hubs,
            name: object_name(&id),
            device: name.parse().unwrap(),
            id,
            mutant,
            clock,
            state: Mutex::default(),
            killed: Notify::new(),
            first_goes_on: Notify::new(),
            second_goes_on: Notify::new(),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        let at = self.clock.monotonic().as_millis();
        self.state()
            .log
            .push(format!("{at:>7} ms  {}", text.into()));
    }

    pub(crate) fn violation(&self, text: impl Into<String>) {
        let text = text.into();
        self.note(format!("VIOLATION {text}"));
        self.state().violations.push(text);
    }

    /// Takes a request on its way, with what the plan has in store for it.
    pub(crate) async fn carry(
        self: &Arc<Self>,
        actor: Actor,
        message: Message,
    ) -> Result<Response<Bytes>, NoReply> {
        self.state().calls += 1;
        self.refuse_if_unreachable(&message)?;
        if !message.is_effect() || !self.state().recording {
            let reply = self.deliver(&message).await;
            self.write_to_twins().await;
            return reply;
        }
        match actor {
            Actor::First => self.carry_effect(message).await,
            Actor::Second(held) => self.carry_for_second(message, held).await,
        }
    }

    async fn carry_effect(self: &Arc<Self>, message: Message) -> Result<Response<Bytes>, NoReply> {
        let (number, fault) = {
            let mut state = self.state();
            let versions = state.versions.len();
            state.effects.push((message.describe(), versions));
            let number = state.effects.len();
            (number, state.fault.filter(|fault| fault.at == number))
        };
        self.note(format!("{number}: {}", message.describe()));
        self.clock.advance(Duration::from_millis(1));
        self.happen().await;
        self.refuse_if_unreachable(&message)?;
        let Some(fault) = fault else {
            let reply = self.deliver(&message).await;
            self.after(number).await;
            return reply;
        };
        self.note(format!("   {fault}"));
        match fault.kind {
            Kind::KilledBefore => self.die().await,
            Kind::KilledAfter => {
                let _ = self.deliver(&message).await;
                self.after(number).await;
                self.die().await
            }
            Kind::KilledUnderWay(due) => {
                self.hold_back(message, number, due);
                self.after(number).await;
                self.die().await
            }
            Kind::RequestLost => {
                self.after(number).await;
                self.pass_time(CALL_TIMEOUT).await;
                Err(NoReply::Timeout)
            }
            Kind::RequestLate(due) => {
                self.hold_back(message, number, due);
                self.after(number).await;
                self.pass_time(CALL_TIMEOUT).await;
                Err(NoReply::Timeout)
            }
            Kind::ReplyLost => {
                let _ = self.deliver(&message).await;
                self.after(number).await;
                self.pass_time(CALL_TIMEOUT).await;
                Err(NoReply::Timeout)
            }
            Kind::Failed => {
                let _ = self.deliver(&message).await;
                self.after(number).await;
                Ok(failure())
            }
            Kind::Again(due) => {
                let reply = self.deliver(&message).await;
                self.hold_back(message, number, due);
                self.after(number).await;
                reply
            }
            Kind::Second { back, held } => {
                self.start_second(number, back, held).await;
                let reply = self.deliver(&message).await;
                self.after(number).await;
                reply
            }
        }
    }

    async fn die(&self) -> ! {
        self.killed.notify_one();
        pending::<()>().await;
        unreachable!("nothing follows death")
    }

    fn refuse_if_unreachable(&self, message: &Message) -> Result<(), NoReply> {
        match message {
            Message::Hub { hub, .. } if !self.hubs[*hub].reachable.load(Ordering::Relaxed) => {
                Err(NoReply::Unreachable)
            }
            Message::Hub { .. } | Message::Api(_) => Ok(()),
        }
    }

    /// What the scenario has happen at this effect, whoever has it.
    async fn happen(self: &Arc<Self>) {
        let due = {
            let mut state = self.state();
            state.attempts += 1;
            let number = state.attempts;
            take_due(&mut state.during, number)
        };
        for act in due {
            self.act(act).await;
        }
    }

    /// What the scenario has happen once this effect has taken place.
    async fn follow(self: &Arc<Self>) {
        let due = {
            let mut state = self.state();
            let number = state.attempts;
            take_due(&mut state.following, number)
        };
        for act in due {
            self.act(act).await;
        }
    }

    /// Looks at the world after an effect, and lets go what is due.
    async fn after(self: &Arc<Self>, number: usize) {
        self.follow().await;
        self.write_to_twins().await;
        invariants::check(self).await;
        self.let_go(|late| late.due <= number).await;
    }

    fn hold_back(&self, message: Message, number: usize, due: Due) {
        let late = self.late(Some(message), number, due);
        self.state().late.push(late);
    }

    fn late(&self, message: Option<Message>, number: usize, due: Due) -> Late {
        let due = match due {
            Due::After(more) => number + more,
            Due::End => usize::MAX,
        };
        Late {
            message,
            due,
            until: self.clock.monotonic() + CALL_LIFE,
        }
    }

    /// Delivers what was held back and lets the second controller go on, where `is_due`.
    async fn let_go(self: &Arc<Self>, is_due: impl Fn(&Late) -> bool) {
        loop {
            let next = {
                let mut state = self.state();
                let at = state.late.iter().position(&is_due);
                at.map(|at| state.late.remove(at))
                    .or_else(|| state.held.take_if(|held| is_due(held)))
            };
            let Some(late) = next else { return };
            if let Some(message) = late.message {
                let reply = self.deliver(&message).await;
                let status = reply.map_or(0, |reply| reply.status().as_u16());
                self.note(format!("   late: {} → {status}", message.describe()));
            } else {
                self.second_goes_on.notify_one();
                self.first_goes_on.notified().await;
            }
            self.write_to_twins().await;
            invariants::check(self).await;
        }
    }

    /// Whether something is still held back.
    pub(crate) fn owes(&self) -> bool {
        let state = self.state();
        !state.late.is_empty() || state.held.is_some()
    }

    /// Delivers everything that was held back.
    pub(crate) async fn settle_debts(self: &Arc<Self>) {
        self.let_go(|_| true).await;
    }

    /// Lets time pass; what cannot act any later acts before.
    pub(crate) async fn pass_time(self: &Arc<Self>, by: Duration) {
        let then = self.clock.monotonic() + by;
        self.let_go(|late| late.until <= then).await;
        let left = then.saturating_sub(self.clock.monotonic());
        self.clock.advance(left);
    }

    /// A second controller makes one pass; gives the turn back when it is held or done.
    pub(crate) async fn start_second(
        self: &Arc<Self>,
        number: usize,
        back: usize,
        held: Option<Due>,
    ) {
        let object = {
            let state = self.state();
            let at = state.versions.len().checked_sub(back + 1);
            at.and_then(|at| state.versions.get(at).cloned())
        };
        let Some(object) = object else { return };
        // The due time is counted from the effect at which it began.
        let held = held.map(|due| match due {
            Due::After(more) => Due::After(number + more),
            Due::End => Due::End,
        });
        let world = Arc::clone(self);
        let context = incarnation::start(self, Actor::Second(held));
        tokio::spawn(async move {
            let pass = rehome::controller::registration::reconcile(Arc::new(object), context);
            let outcome = pass
                .await
                .map_or_else(|error| error.to_string(), |_| "done".into());
            world.note(format!("   second controller: {outcome}"));
            // Never held again: a permit that is left over wakes nobody wrongly.
            world.first_goes_on.notify_one();
        });
        self.first_goes_on.notified().await;
        invariants::check(self).await;
    }

    async fn carry_for_second(
        self: &Arc<Self>,
        message: Message,
        held: Option<Due>,
    ) -> Result<Response<Bytes>, NoReply> {
        let wait = held.filter(|_| !std::mem::replace(&mut self.state().second_was_held, true));
        self.note(format!("   second: {}", message.describe()));
        if let Some(due) = wait {
            let late = self.late(None, 0, due);
            self.state().held = Some(late);
            self.first_goes_on.notify_one();
            self.second_goes_on.notified().await;
            self.note(format!("   second goes on: {}", message.describe()));
        }
        self.happen().await;
        self.refuse_if_unreachable(&message)?;
        let reply = self.deliver(&message).await;
        self.follow().await;
        self.write_to_twins().await;
        invariants::check(self).await;
        reply
    }

    /// Hands a request to the real thing.
    async fn deliver(&self, message: &Message) -> Result<Response<Bytes>, NoReply> {
        match message {
            Message::Hub { hub, request } => {
                let router = self.hubs[*hub].router.clone();
                let request = request.clone().map(axum::body::Body::from);
                let reply = router
                    .oneshot(request)
                    .await
                    .map_err(|_| NoReply::Timeout)?;
                let (head, body) = reply.into_parts();
                let body = body
                    .collect()
                    .await
                    .map_err(|_| NoReply::Timeout)?
                    .to_bytes();
                Ok(Response::from_parts(head, body))
            }
            Message::Api(request) => self.ask_api_server(request).await,
        }
    }

    async fn ask_api_server(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, NoReply> {
        let writes = request.method() != Method::GET;
        let request = request.clone().map(|body| Body::from(body.to_vec()));
        let reply = self
            .ground
            .controller
            .send(request)
            .await
            .map_err(|error| {
                self.note(format!("   the API server failed: {error}"));
                NoReply::Timeout
            })?;
        let (head, body) = reply.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|_| NoReply::Timeout)?
            .to_bytes();
        if writes {
            self.note(format!("   → {}", head.status));
        }
        if writes
            && head.status.is_success()
            && let Ok(object) = serde_json::from_slice::<DeviceRegistration>(&body)
            && object.name_any() == self.name
        {
            self.saw(object);
        }
        Ok(Response::from_parts(head, body))
    }
}

fn take_due(acts: &mut Vec<(usize, Act)>, number: usize) -> Vec<Act> {
    acts.extract_if(.., |(at, _)| *at <= number)
        .map(|(_, act)| act)
        .collect()
}

fn failure() -> Response<Bytes> {
    // Read by both clients: a Status for one, any 500 for the other.
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500,
        "message": "something failed after the effect", "reason": "InternalError",
        "Message": "ErrorCode:ServerError;something failed after the effect",
    });
    let mut reply = Response::new(Bytes::from(body.to_string()));
    *reply.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    reply
}

impl Site {
    fn new(hub: &str, clock: &Arc<PlanClock>) -> Self {
        let permissions = ["RegistryRead", "RegistryWrite", "ServiceConnect"];
        let policies = json!({ "policies": [{
            "name": "rehome", "permissions": permissions,
            "primaryKey": SERVICE_KEY, "secondaryKey": SERVICE_KEY,
        }] });
        let settings = Settings {
            host_name: host_name(hub),
            max_devices: ROOM,
            policies: Policies::parse(&policies.to_string()).unwrap(),
            clock: clock.clone(),
            random: Arc::new(|bytes| aws_lc_rs::rand::fill(bytes).unwrap()),
        };
        let core = Hub::new(Arc::new(MemoryStore::new()), settings);
        Self {
            host_name: host_name(hub),
            router: router(Arc::clone(&core)),
            core,
            reachable: AtomicBool::new(true),
        }
    }

    /// Asks the hub as a service does that has all rights.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: &Value,
    ) {
        let key = SERVICE_KEY.parse().unwrap();
        let token = SasToken::sign(&self.host_name, &key, u64::from(u32::MAX), Some("rehome"));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}?api-version=2021-04-12"))
            .header("authorization", token);
        if let Some(etag) = if_match {
            request = request.header("if-match", etag);
        }
        let request = request
            .body(axum::body::Body::from(body.to_string()))
            .unwrap();
        let reply = self.router.clone().oneshot(request).await.unwrap();
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
    }
}
