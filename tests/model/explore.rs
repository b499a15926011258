//! Every order in which things can happen, breadth first, each world once.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::bridge::{Bridge, Move, Question};
use crate::hub;
use crate::invariants;
use crate::scope::Scope;
use crate::world::{Call, Controller, Id, Kind, Object, Spec, Status, World};

/// One thing that can happen next.
pub(crate) struct Next {
    pub(crate) world: World,
    pub(crate) label: String,
    pub(crate) violation: Option<&'static str>,
}

/// What an exploration came to.
pub(crate) struct Outcome {
    pub(crate) states: usize,
    /// Whether there is no state beyond those.
    pub(crate) closed: bool,
    pub(crate) at_rest: usize,
    pub(crate) depth: u32,
    /// The shortest way to a violation.
    pub(crate) trace: Option<String>,
}

pub(crate) struct Explorer {
    pub(crate) scope: Scope,
    bridge: Bridge,
    answers: RefCell<HashMap<Question, Move, BuildHasherDefault<Mixer>>>,
    labelling: bool,
}

/// Fast and good enough for keys that nobody chooses.
#[derive(Default)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 = (self.0.rotate_left(7) ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(7) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

fn fingerprint(w: &World) -> u64 {
    let mut hasher = Mixer::default();
    w.hash(&mut hasher);
    hasher.finish()
}

impl Explorer {
    pub(crate) fn new(scope: Scope) -> Self {
        #[allow(unused_mut, reason = "only test builds with mutants change it")]
        let mut bridge = Bridge::new(scope.hubs);
        #[cfg(feature = "mutants")]
        {
            bridge.mutant = scope.mutant;
        }
        Self {
            scope,
            bridge,
            answers: RefCell::default(),
            labelling: false,
        }
    }

    /// Goes everywhere, until the first violation.
    pub(crate) fn explore(&mut self, most: usize) -> Outcome {
        let first = self.first_world();
        let mut known: HashSet<u64, BuildHasherDefault<Mixer>> = HashSet::default();
        let mut rested: HashSet<u64, BuildHasherDefault<Mixer>> = HashSet::default();
        let mut parents: Vec<(u32, u16)> = vec![(0, 0)];
        let mut queue = VecDeque::from([(first, 0u32, 0u32)]);
        let (mut at_rest, mut deepest) = (0, 0);
        known.insert(fingerprint(&first));
        let (mut trace, mut closed) = (None, true);
        'search: while let Some((world, index, depth)) = queue.pop_front() {
            deepest = deepest.max(depth);
            if world.is_at_rest() {
                at_rest += 1;
                let quiet = World {
                    controllers: Default::default(),
                    ..world
                }
                .canonical();
                if rested.insert(fingerprint(&quiet))
                    && let Err(why) = invariants::settles(self, &quiet)
                {
                    trace = Some(self.retrace(&parents, index, None, &why));
                    break;
                }
            }
            for (number, next) in self.successors(&world).into_iter().enumerate() {
                let number = u16::try_from(number).expect("few successors");
                let violation = next
                    .violation
                    .or_else(|| invariants::broken(self.scope, &next.world));
                if let Some(violation) = violation {
                    trace = Some(self.retrace(&parents, index, Some(number), violation));
                    break 'search;
                }
                let mark = fingerprint(&next.world);
                if known.len() >= most {
                    closed &= known.contains(&mark);
                } else if known.insert(mark) {
                    parents.push((index, number));
                    let index = u32::try_from(parents.len() - 1).expect("fewer than 2^32 states");
                    queue.push_back((next.world, index, depth + 1));
                }
            }
        }
        Outcome {
            states: known.len(),
            closed: closed && trace.is_none(),
            at_rest,
            depth: deepest,
            trace,
        }
    }

    fn first_world(&self) -> World {
        let mut w = World {
            want: 1,
            ..World::default()
        };
        if self.scope.foreign {
            w.hubs[0] = Id {
                generation: 1,
                etag: 1,
                on: true,
                ..Id::default()
            };
        }
        if !self.scope.first {
            w.hubs[0] = Id {
                generation: 1,
                etag: 1,
                on: true,
                ours: true,
                ..Id::default()
            };
            w.hubs[0].word.uid = 1;
            w.hubs[0].word.token = 1;
            w.told = 1;
            let spec = Spec {
                operation: 1,
                proposed: 1,
                ..Spec::default()
            };
            let status = Status {
                state: 2,
                home: 1,
                generation: 1,
                operation: 1,
                hash: 1,
                credential: true,
                ..Status::default()
            };
            w.object = Object {
                uid: 1,
                deleting: false,
                spec,
                status,
            };
        }
        self.changed(&mut w, None);
        w.canonical()
    }

    /// The object changed: caches are old, what rested on them is dropped.
    pub(crate) fn changed(&self, w: &mut World, writer: Option<usize>) {
        let object = w.object;
        for (number, controller) in w.controllers.iter_mut().enumerate() {
            if Some(number) == writer || !self.scope.stale {
                *controller = Controller {
                    object,
                    fresh: true,
                    seen: Default::default(),
                };
            } else {
                controller.fresh = false;
            }
        }
    }

    /// What `decide` says, remembered.
    pub(crate) fn ask(&self, question: Question) -> Move {
        if let Some(known) = self.answers.borrow().get(&question) {
            return *known;
        }
        let answer = self.bridge.ask(&question);
        self.answers.borrow_mut().insert(question, answer);
        answer
    }

    pub(crate) fn question(
        &self,
        w: &World,
        controller: &Controller,
        check_home: bool,
    ) -> Question {
        Question {
            object: controller.object,
            seen: controller.seen,
            busy: w.busy(controller.object.uid),
            hubs: self.scope.hubs,
            want: w.want,
            enrollment: w.enrollment,
            policy: self.scope.policy,
            proceed: self.scope.proceed,
            retain: self.scope.retain,
            later: w.later,
            check_home,
            token: w.unused(Kind::Token),
        }
    }

    /// Reads what a move asks for; `false` when it asks for nothing.
    pub(crate) fn look(w: &World, controller: &mut Controller, asked: Move) -> bool {
        let (Move::LookIdentity(hub) | Move::LookTwin(hub) | Move::LookRoom(hub)) = asked else {
            return false;
        };
        let reads = controller
            .seen
            .iter()
            .filter_map(|seen| seen.twin)
            .map(|twin| twin.3)
            .max();
        let busy = w.busy(controller.object.uid) & 1 << hub != 0;
        let (id, seen) = (
            w.hubs[usize::from(hub)],
            &mut controller.seen[usize::from(hub)],
        );
        if w.down & 1 << hub != 0 {
            seen.trouble = 1;
        } else if matches!(asked, Move::LookIdentity(_)) {
            seen.identity = Some(id);
            seen.busy = busy;
        } else if matches!(asked, Move::LookTwin(_)) {
            let etag = if id.generation == 0 { 0 } else { id.etag };
            seen.twin = Some((id.generation != 0, id.data, etag, reads.unwrap_or(0) + 1));
        } else {
            seen.room = true;
        }
        true
    }

    /// The next move of a pass, its reads made at once; `Err` when it reads for ever.
    pub(crate) fn next_move(
        &self,
        w: &World,
        controller: &mut Controller,
        check_home: bool,
    ) -> Result<Move, &'static str> {
        for _ in 0..24 {
            let step = self.ask(self.question(w, controller, check_home));
            if !Self::look(w, controller, step) {
                return Ok(step);
            }
        }
        Err("reads without end")
    }

    fn successors(&self, w: &World) -> Vec<Next> {
        let mut out = Vec::with_capacity(16);
        for number in 0..2 {
            if number == 1 && w.controllers[0] == w.controllers[1] {
                continue;
            }
            self.controller_steps(w, number, &mut out);
        }
        for slot in 0..w.in_flight() {
            if slot > 0 && w.calls[slot] == w.calls[slot - 1] {
                continue;
            }
            let call = w.calls[slot];
            let mut lost = *w;
            lost.calls[slot] = Call::default();
            let mut next = lost;
            let (reply, violation) = hub::take(&self.scope, &mut next, &call);
            self.push(&mut out, lost, None, || format!("lost: {call:?}"));
            self.push(&mut out, next, violation, || {
                format!("arrives late: {call:?}: {reply:?}")
            });
        }
        self.environment(w, &mut out);
        out
    }

    pub(crate) fn push(
        &self,
        out: &mut Vec<Next>,
        world: World,
        violation: Option<&'static str>,
        label: impl FnOnce() -> String,
    ) {
        let label = if self.labelling {
            label()
        } else {
            String::new()
        };
        out.push(Next {
            world: world.canonical(),
            label,
            violation,
        });
    }

    /// Walks the way again, this time with words.
    fn retrace(
        &mut self,
        parents: &[(u32, u16)],
        end: u32,
        last: Option<u16>,
        why: &str,
    ) -> String {
        use std::fmt::Write as _;
        let mut way = Vec::new();
        let mut index = end;
        while index != 0 {
            let (parent, number) = parents[index as usize];
            way.push(number);
            index = parent;
        }
        way.reverse();
        way.extend(last);
        self.labelling = true;
        let mut world = self.first_world();
        let mut text = format!("{why}\n     {}\n", describe(&world));
        for (step, number) in way.iter().enumerate() {
            let next = self.successors(&world).swap_remove(usize::from(*number));
            let _ = writeln!(
                text,
                "{:3}. {}\n     => {}",
                step + 1,
                next.label,
                describe(&next.world)
            );
            world = next.world;
        }
        self.labelling = false;
        text
    }
}

/// The record that the gateway makes of a device's first request.
pub(crate) fn register(w: &World) -> Object {
    let spec = Spec {
        operation: w.unused(Kind::Token),
        proposed: w.want,
        ..Spec::default()
    };
    Object {
        uid: w.unused(Kind::Uid),
        spec,
        ..Object::default()
    }
}

/// The request that the gateway writes; none while an operation is open.
pub(crate) fn check_in(w: &World, verify: bool) -> Option<Object> {
    let mut object = w.object;
    let open = object.spec.operation != object.status.operation || object.status.state == 1;
    if object.uid == 0 || object.deleting || open {
        return None;
    }
    object.spec.operation = w.unused(Kind::Token);
    object.spec.proposed = w.want;
    object.spec.verify = verify;
    Some(object)
}

pub(crate) fn describe(w: &World) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let s = &w.object.status;
    let t = &s.transfer;
    let _ = write!(
        text,
        "uid {} op {}/{}",
        w.object.uid, w.object.spec.operation, s.operation
    );
    if w.object.deleting {
        text.push_str(" DELETING");
    }
    let _ = write!(
        text,
        " state {} home {} g{} want {}",
        s.state, s.home, s.generation, w.want
    );
    if s.first != 0 {
        let _ = write!(text, " first {}/t{}", s.first, s.first_id);
    }
    if t.phase != 0 {
        let _ = write!(
            text,
            " transfer t{} phase {} {}->{} of g{}",
            t.id, t.phase, t.from, t.to, t.generation
        );
    }
    let _ = write!(text, " cleanup {:?}", s.cleanup.map(|(listed, _)| listed));
    for (hub, id) in w
        .hubs
        .iter()
        .enumerate()
        .filter(|(_, id)| id.generation != 0)
    {
        let state = if id.on { "on" } else { "off" };
        let word = &id.word;
        let _ = write!(
            text,
            " | hub {}: g{} {state} u{}/t{} data {} e{}",
            hub + 1,
            id.generation,
            word.uid,
            word.token,
            id.data,
            id.etag
        );
    }
    let _ = write!(text, " | in flight {}", w.in_flight());
    text
}
