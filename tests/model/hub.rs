//! What a hub does with a call, and which calls must never take effect.

use crate::scope::Scope;
use crate::world::{Call, Id, Kind, Word, World};

/// A hub's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The identity as it is now; none after a delete.
    Done(Id),
    Exists,
    Refused,
    /// Not there, or changed since it was read.
    Failed,
}

/// Takes a call; the violation, when its effect breaks an invariant.
pub(crate) fn take(scope: &Scope, w: &mut World, call: &Call) -> (Reply, Option<&'static str>) {
    let here = usize::from(call.hub);
    let id = w.hubs[here];
    if call.kind == 1 {
        if id.generation != 0 {
            return (Reply::Exists, None);
        }
        if w.refuses & 1 << call.hub != 0 {
            return (Reply::Refused, None);
        }
        let new = Id {
            generation: w.unused(Kind::Generation),
            etag: w.unused(Kind::Etag),
            on: call.on,
            word: call.word,
            data: call.data,
            ours: true,
            retained: false,
        };
        w.hubs[here] = new;
        return (Reply::Done(new), None);
    }
    if id.generation == 0 || (call.etag != 255 && call.etag != id.etag) {
        return (Reply::Failed, None);
    }
    if call.kind == 3 {
        let violation = wrong_delete(w, call, &id);
        w.hubs[here] = Id::default();
        return (Reply::Done(Id::default()), violation);
    }
    let violation = if !id.ours && !call.keys {
        Some("an identity that is not ours was written")
    } else if call.on && !id.on && w.object.uid == 0 && !scope.retain {
        Some("I8: a late call brought a deleted device back")
    } else {
        None
    };
    let etag = w.unused(Kind::Etag);
    let id = &mut w.hubs[here];
    (id.on, id.word, id.etag) = (call.on, call.word, etag);
    id.ours |= call.keys;
    id.retained &= !call.keys;
    (Reply::Done(*id), violation)
}

fn wrong_delete(w: &World, call: &Call, id: &Id) -> Option<&'static str> {
    if !id.ours {
        return Some("an identity that is not ours was deleted");
    }
    if w.object.uid == 0 || w.object.deleting {
        return None;
    }
    let (status, hub) = (&w.object.status, call.hub + 1);
    let t = &status.transfer;
    let is_source = t.phase == 2 && t.from == hub && id.generation == t.generation;
    let is_reset = t.phase == 1 && t.from == t.to && t.from == hub;
    let is_home = status.home == hub && status.generation == id.generation;
    if is_home && !is_source && !is_reset {
        return Some("I3: the home was deleted");
    }
    (t.phase == 2 && t.to == hub).then_some("I3: the committed target was deleted")
}

/// The device writes its twin wherever it is let in; a fenced hub refuses.
pub(crate) fn write_twin(w: &World, hub: u8, bit: u8) -> Option<World> {
    let id = w.hubs[usize::from(hub)];
    let bit = 1 << bit;
    (id.on && w.told & 1 << hub != 0 && w.acknowledged & bit == 0).then(|| {
        let mut next = *w;
        next.hubs[usize::from(hub)].data |= bit;
        next.acknowledged |= bit;
        next
    })
}

/// The operator disables the device at its hub, with a word of his own.
pub(crate) fn disable(w: &World, hub: u8) -> Option<World> {
    let id = w.hubs[usize::from(hub)];
    (id.on && id.ours && w.hubs.iter().all(|id| !id.word.operator)).then(|| {
        let mut next = *w;
        let etag = next.unused(Kind::Etag);
        let id = &mut next.hubs[usize::from(hub)];
        (id.on, id.etag) = (false, etag);
        id.word = Word {
            operator: true,
            ..Word::default()
        };
        next
    })
}
