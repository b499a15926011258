//! What must hold after every step, and what must come of every world once the faults stop.

use crate::bridge::Move;
use crate::explore::{Explorer, check_in, describe, register};
use crate::scope::Scope;
use crate::world::{Controller, Status, World};

/// The invariant that a world breaks.
pub(crate) fn broken(scope: Scope, w: &World) -> Option<&'static str> {
    let (object, status) = (&w.object, &w.object.status);
    let t = &status.transfer;
    let mut homes = 0;
    for (hub, id) in w.hubs.iter().enumerate() {
        if id.generation == 0 || !id.on || !id.ours || (id.retained && scope.retain) {
            continue;
        }
        let number = u8::try_from(hub).expect("few hubs") + 1;
        let untold = w.told & 1 << hub == 0;
        let left = object.uid != 0 && status.cleanup[hub].0 && (untold || scope.proceed);
        let proceeded = t.proceed && t.phase == 2 && t.from == number;
        if !left && !proceeded {
            homes += 1;
        }
    }
    if homes > 1 {
        return Some("I1: two hubs hold an enabled identity of the device");
    }
    if status.state == 2 && (t.phase != 0 || status.home == 0 || status.first != 0) {
        return Some("I2: Assigned while the operation is open");
    }
    None
}

/// Why a status must not be written over the present one.
pub(crate) fn wrong_record(scope: &Scope, w: &World, new: &Status) -> Option<&'static str> {
    let old = &w.object.status;
    let (was, t) = (&old.transfer, &new.transfer);
    let listed = |hub: u8| hub != 0 && old.cleanup[usize::from(hub) - 1].0;
    if (t.phase == 1 && was.phase == 0 && listed(t.to))
        || (new.first != old.first && listed(new.first))
    {
        return Some("a hub in cleanup was chosen");
    }
    if t.phase == 1 && was.phase == 0 {
        let forced = w.object.spec.trigger >= 2 && new.trigger_done && !old.trigger_done;
        if scope.policy >= 3 && !forced {
            return Some("I5: moved against the policy");
        }
        if t.from != t.to && t.to != w.want {
            return Some("I5: moved to a hub that allocation does not want");
        }
        if t.initial != (scope.policy == 2 || (forced && w.object.spec.trigger == 3)) && !forced {
            return Some("I5: moved with the wrong data");
        }
    }
    if was.phase == 1 && t.phase == 2 && was.from != was.to {
        return wrong_commit(scope, w, new);
    }
    (was.phase >= 2 && t.phase != 0 && t != was).then_some("a decided move changed")
}

fn wrong_commit(scope: &Scope, w: &World, new: &Status) -> Option<&'static str> {
    let t = &new.transfer;
    let source = w.hubs[usize::from(t.from) - 1];
    let target = w.hubs[usize::from(t.to) - 1];
    if target.generation == 0 || target.word.token != t.id || target.on {
        let excused = scope.vanishes && target.generation == 0;
        return (!excused).then_some("I3: committed without a fenced copy at the target");
    }
    if source.generation != t.generation || t.proceed {
        return None;
    }
    if source.on || source.word.token != t.id {
        let excused = scope.disables && source.word.operator;
        return (!excused).then_some("I3: committed while the source was open to writes");
    }
    (!t.initial && source.data != target.data).then_some("I3: committed with a copy that differs")
}

/// Without faults the world settles where it should, and then nothing is looked at any more.
pub(crate) fn settles(explorer: &Explorer, at_rest: &World) -> Result<(), String> {
    let mut w = *at_rest;
    (w.down, w.refuses, w.enrollment) = (0, 0, 0);
    run(explorer, &mut w, false)?;
    home_is_open(explorer.scope, &w)?;
    if w.object.uid == 0 {
        nothing_left(explorer.scope, &w)?;
        w.object = register(&w);
        run(explorer, &mut w, false)?;
    }
    w.later = true;
    if let Some(asks) = check_in(&w, true) {
        w.object = asks;
        run(explorer, &mut w, false)?;
    }
    settled(explorer.scope, &w)?;
    let idle = Controller {
        object: w.object,
        fresh: true,
        ..Controller::default()
    };
    match explorer.ask(explorer.question(&w, &idle, false)) {
        Move::Settled => Ok(()),
        step => Err(format!("liveness: settled and still {step:?}")),
    }
}

fn run(explorer: &Explorer, w: &mut World, check_home: bool) -> Result<(), String> {
    let mut me = Controller {
        object: w.object,
        fresh: true,
        ..Controller::default()
    };
    for _ in 0..60 {
        // Ids are renamed in the world and in what the pass has read alike.
        w.controllers[0] = me;
        *w = w.canonical();
        me = w.controllers[0];
        w.controllers = Default::default();
        me.object = w.object;
        match explorer.next_move(w, &mut me, check_home)? {
            Move::Record(status) => {
                if let Some(why) = wrong_record(&explorer.scope, w, &status) {
                    return Err(format!("while settling: {why}"));
                }
                explorer.write_status(w, status, None);
                me = Controller {
                    object: w.object,
                    fresh: true,
                    ..Controller::default()
                };
            }
            Move::Release => {
                Explorer::release(w);
                return Ok(());
            }
            Move::Settled => return Ok(()),
            Move::Wait => return Err(format!("liveness: waits without a fault: {}", describe(w))),
            step => {
                let (call, _) = explorer.call(&me, step);
                if let Some(why) = explorer.answer(w, &mut me, &call) {
                    return Err(format!("while settling: {why}"));
                }
            }
        }
        if let Some(why) = broken(explorer.scope, w) {
            return Err(format!("while settling: {why}"));
        }
    }
    Err(format!("liveness: does not settle: {}", describe(w)))
}

/// A device is never left disabled until somebody asks for it, whatever arrived late.
fn home_is_open(scope: Scope, w: &World) -> Result<(), String> {
    let s = &w.object.status;
    if w.object.uid == 0 || s.state != 2 || scope.vanishes {
        return Ok(());
    }
    let home = w.hubs[usize::from(s.home) - 1];
    if home.generation == s.generation && !home.on && !home.word.operator {
        let now = describe(w);
        return Err(format!("liveness: settled with the home disabled: {now}"));
    }
    Ok(())
}

/// I7 after a deletion: inert, marked leftovers are the sweep's.
fn nothing_left(scope: Scope, w: &World) -> Result<(), String> {
    let left = w
        .hubs
        .iter()
        .any(|id| id.generation != 0 && id.ours && (id.on || id.word.uid == 0));
    if left && !scope.retain {
        return Err(format!(
            "I7: something is left after the deletion: {}",
            describe(w)
        ));
    }
    Ok(())
}

fn settled(scope: Scope, w: &World) -> Result<(), String> {
    let s = &w.object.status;
    let fail = |why: &str| Err(format!("{why}: {}", describe(w)));
    if s.state != 2
        || s.transfer.phase != 0
        || s.first != 0
        || s.cleanup.iter().any(|entry| entry.0)
    {
        return fail("liveness: at rest and not settled");
    }
    let home = w.hubs[usize::from(s.home) - 1];
    if home.generation == 0 || home.generation != s.generation || !home.ours {
        return fail("liveness: the home is not where the record says");
    }
    if !home.on && !home.word.operator {
        return fail("liveness: the device is left disabled");
    }
    for (hub, id) in w.hubs.iter().enumerate() {
        let retained = id.retained && scope.retain;
        let elsewhere =
            id.generation != 0 && id.ours && !retained && hub + 1 != usize::from(s.home);
        if elsewhere && (id.on || id.word.uid == 0) {
            return fail("I7: something is left at a hub that is not the home");
        }
    }
    let wanted = w.hubs[usize::from(w.want) - 1];
    let occupied = wanted.generation != 0 && (!wanted.ours || wanted.retained);
    if s.home != w.want && scope.policy <= 2 && !occupied {
        return fail("the device is not where allocation wants it");
    }
    if !w.lossy && w.acknowledged & !home.data != 0 {
        return fail("I4: an acknowledged write is lost");
    }
    Ok(())
}
