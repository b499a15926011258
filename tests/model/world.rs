//! The abstract world. Every id is a small number that only equality gives a meaning, renamed after
//! each step in order of appearance: worlds close without a bound on edits, moves and crashes.

/// Hubs in the arrays; a world uses the first two or three.
pub(crate) const HUBS: usize = 3;
/// Calls in flight in the arrays; a world allows fewer.
pub(crate) const CALLS: usize = 3;

/// `statusReason`: a mark when `uid` is not 0, else the operator's own word when `operator`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Word {
    pub(crate) uid: u8,
    pub(crate) token: u8,
    /// 0 none, 1 adopted, 2 + data for a digest.
    pub(crate) digest: u8,
    pub(crate) operator: bool,
}

/// An identity with its twin; `generation` 0 means there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) generation: u8,
    pub(crate) etag: u8,
    pub(crate) on: bool,
    pub(crate) word: Word,
    /// Which writes the twin holds, one bit each.
    pub(crate) data: u8,
    /// Created or adopted by us: holds our keys.
    pub(crate) ours: bool,
    /// Left behind when a registration with deletion policy `Retain` went.
    pub(crate) retained: bool,
}

/// `status.transfer`; `phase` 0 none, 1 open, 2 committed, 3 aborting. Hubs count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Transfer {
    pub(crate) phase: u8,
    pub(crate) id: u8,
    pub(crate) initial: bool,
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) generation: u8,
    pub(crate) was_on: bool,
    pub(crate) was_operators: bool,
    pub(crate) hash: u8,
    pub(crate) triggered: bool,
    pub(crate) proceed: bool,
}

/// `status`; `state` 0 none, 1 Assigning, 2 Assigned, 3 Failed, 4 Disabled. Hubs count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Status {
    pub(crate) state: u8,
    pub(crate) home: u8,
    pub(crate) generation: u8,
    pub(crate) operation: u8,
    /// Wanted hub whose placement hash is recorded; 0 none.
    pub(crate) hash: u8,
    pub(crate) credential: bool,
    pub(crate) first: u8,
    pub(crate) first_id: u8,
    pub(crate) transfer: Transfer,
    /// Per hub: listed, and the generation recorded with it.
    pub(crate) cleanup: [(bool, u8); HUBS],
    pub(crate) refused_hash: u8,
    pub(crate) refused_hub: u8,
    pub(crate) trigger_done: bool,
}

/// `spec`, as far as it moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Spec {
    pub(crate) operation: u8,
    pub(crate) proposed: u8,
    pub(crate) verify: bool,
    /// 0 none, 1 Policy, 2 `MigrateData`, 3 `ResetData`.
    pub(crate) trigger: u8,
}

/// The object; `uid` 0 means there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Object {
    pub(crate) uid: u8,
    pub(crate) deleting: bool,
    pub(crate) spec: Spec,
    pub(crate) status: Status,
}

/// What a pass has read of one hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen {
    pub(crate) identity: Option<Id>,
    /// The data, the etag of the identity, and the number of the read; generation 0 absent.
    pub(crate) twin: Option<(bool, u8, u8, u8)>,
    pub(crate) room: bool,
    /// 0 none, 1 unreachable, 2 refused.
    pub(crate) trouble: u8,
    pub(crate) exists: bool,
    pub(crate) acknowledged: bool,
    /// Whether a call was in flight to the hub when it was read.
    pub(crate) busy: bool,
}

/// One controller: what it believes the object is, and what its pass has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Controller {
    pub(crate) object: Object,
    pub(crate) fresh: bool,
    pub(crate) seen: [Seen; HUBS],
}

/// A call on its way; `kind` 0 none, 1 create, 2 update, 3 delete. `etag` 255 means no If-Match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Call {
    pub(crate) kind: u8,
    pub(crate) hub: u8,
    pub(crate) etag: u8,
    pub(crate) on: bool,
    pub(crate) word: Word,
    pub(crate) data: u8,
    pub(crate) keys: bool,
    pub(crate) uid: u8,
}

/// Everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) hubs: [Id; HUBS],
    pub(crate) object: Object,
    /// Hub that allocation wants, from 1.
    pub(crate) want: u8,
    pub(crate) down: u8,
    pub(crate) refuses: u8,
    /// 0 valid, 1 disabled, 2 missing.
    pub(crate) enrollment: u8,
    /// The pause after a refused move is over.
    pub(crate) later: bool,
    /// Hubs that the device was told of in this life of the registration.
    pub(crate) told: u8,
    /// Twin writes that were acknowledged.
    pub(crate) acknowledged: u8,
    /// Identities were lost by other hands or at the operator's wish: I4 promises nothing.
    pub(crate) lossy: bool,
    pub(crate) controllers: [Controller; 2],
    pub(crate) calls: [Call; CALLS],
}

/// What a number names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Token,
    Generation,
    Etag,
    Uid,
}

type Visit<'a> = &'a mut dyn FnMut(&mut u8);

impl Word {
    fn visit(&mut self, kind: Kind, f: Visit<'_>) {
        match kind {
            Kind::Token => f(&mut self.token),
            Kind::Uid => f(&mut self.uid),
            Kind::Generation | Kind::Etag => {}
        }
    }
}

impl Id {
    fn visit(&mut self, kind: Kind, f: Visit<'_>) {
        match kind {
            Kind::Generation => f(&mut self.generation),
            Kind::Etag => f(&mut self.etag),
            Kind::Token | Kind::Uid => self.word.visit(kind, f),
        }
    }
}

impl Object {
    fn visit(&mut self, kind: Kind, f: Visit<'_>) {
        let status = &mut self.status;
        match kind {
            Kind::Token => {
                f(&mut self.spec.operation);
                f(&mut status.operation);
                f(&mut status.first_id);
                f(&mut status.transfer.id);
            }
            Kind::Generation => {
                f(&mut status.generation);
                f(&mut status.transfer.generation);
                for (_, generation) in &mut status.cleanup {
                    f(generation);
                }
            }
            Kind::Uid => f(&mut self.uid),
            Kind::Etag => {}
        }
    }
}

impl Controller {
    fn visit(&mut self, kind: Kind, f: Visit<'_>) {
        // What a fresh controller believes the object to be is the object.
        if !self.fresh {
            self.object.visit(kind, f);
        }
        for seen in &mut self.seen {
            if let Some(id) = &mut seen.identity {
                id.visit(kind, f);
            }
            if let (Kind::Etag, Some((_, _, etag, _))) = (kind, &mut seen.twin) {
                f(etag);
            }
        }
    }
}

impl World {
    pub(crate) fn visit(&mut self, kind: Kind, f: Visit<'_>) {
        for id in &mut self.hubs {
            id.visit(kind, f);
        }
        self.object.visit(kind, f);
        for controller in &mut self.controllers {
            controller.visit(kind, f);
        }
        for call in self.calls.iter_mut().filter(|call| call.kind != 0) {
            match kind {
                Kind::Etag => f(&mut call.etag),
                Kind::Uid => {
                    call.word.visit(kind, f);
                    f(&mut call.uid);
                }
                Kind::Token => call.word.visit(kind, f),
                Kind::Generation => {}
            }
        }
    }

    /// A number of that kind that nothing in the world bears.
    pub(crate) fn unused(&self, kind: Kind) -> u8 {
        let mut highest = 0;
        let mut copy = *self;
        copy.visit(kind, &mut |id| {
            if *id != 255 {
                highest = highest.max(*id);
            }
        });
        highest + 1
    }

    /// Renames every id in order of appearance and drops what cannot act any more.
    pub(crate) fn canonical(mut self) -> Self {
        for call in &mut self.calls {
            let current = self.hubs.get(usize::from(call.hub)).map_or(0, |id| id.etag);
            // Etags never repeat: a call whose If-Match is spent never acts.
            if call.kind >= 2 && call.etag != 255 && call.etag != current {
                *call = Call::default();
            }
        }
        self.calls.sort_unstable_by(|one, other| other.cmp(one));
        if self.controllers[1] > self.controllers[0] {
            self.controllers.swap(0, 1);
        }
        for controller in &mut self.controllers {
            rank_reads(&mut controller.seen);
        }
        for kind in [Kind::Token, Kind::Generation, Kind::Etag, Kind::Uid] {
            let mut names = [0u8; 256];
            let mut count = 0;
            self.visit(kind, &mut |id| {
                if *id == 0 || *id == 255 {
                    return;
                }
                let name = &mut names[usize::from(*id)];
                if *name == 0 {
                    count += 1;
                    *name = count;
                }
                *id = *name;
            });
        }
        self.calls.sort_unstable_by(|one, other| other.cmp(one));
        let object = self.object;
        for controller in self.controllers.iter_mut().filter(|one| one.fresh) {
            controller.object = object;
        }
        self
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.calls.iter().filter(|call| call.kind != 0).count()
    }

    /// Hubs, as bits, to which a call of that registration can still act.
    pub(crate) fn busy(&self, uid: u8) -> u8 {
        self.calls
            .iter()
            .filter(|call| call.kind != 0 && call.uid == uid)
            .fold(0, |bits, call| bits | 1 << call.hub)
    }

    /// Whether nothing is under way: no call in flight, no pass that has read anything.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.in_flight() == 0
            && self
                .controllers
                .iter()
                .all(|controller| controller.seen == [Seen::default(); HUBS])
    }
}

/// Only the order of the reads of twins counts.
fn rank_reads(seen: &mut [Seen; HUBS]) {
    let mut numbers: Vec<u8> = seen
        .iter()
        .filter_map(|seen| seen.twin.map(|twin| twin.3))
        .collect();
    numbers.sort_unstable();
    for one in seen {
        if let Some(twin) = &mut one.twin {
            let rank = numbers.iter().filter(|number| **number < twin.3).count();
            twin.3 = u8::try_from(rank).unwrap_or(0) + 1;
        }
    }
}
