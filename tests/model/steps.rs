//! What controllers and everybody else can do next.

use crate::bridge::Move;
use crate::explore::{Explorer, Next, check_in, register};
use crate::hub::{self, Reply};
use crate::invariants;
use crate::world::{Call, Controller, HUBS, Id, Object, Seen, Status, World};

impl Explorer {
    pub(crate) fn controller_steps(&self, w: &World, number: usize, out: &mut Vec<Next>) {
        let me = w.controllers[number];
        if !me.fresh {
            let mut next = *w;
            let object = w.object;
            next.controllers[number] = Controller {
                object,
                fresh: true,
                ..Controller::default()
            };
            self.push(out, next, None, || {
                format!("controller {number} catches up")
            });
        }
        if me.seen != [Seen::default(); HUBS] {
            let mut next = *w;
            next.controllers[number].seen = Default::default();
            self.push(out, next, None, || {
                format!("controller {number} starts again")
            });
        }
        if me.object.uid == 0 {
            return;
        }
        let mut acting = me;
        let step = if self.scope.split_reads {
            let step = self.ask(self.question(w, &me, false));
            if Self::look(w, &mut acting, step) {
                let mut next = *w;
                next.controllers[number] = acting;
                self.push(out, next, None, || format!("controller {number}: {step:?}"));
                return;
            }
            step
        } else {
            match self.next_move(w, &mut acting, false) {
                Ok(step) => step,
                Err(violation) => {
                    self.push(out, *w, Some(violation), || format!("controller {number}"));
                    return;
                }
            }
        };
        match step {
            Move::Record(status) if me.fresh => {
                let mut next = *w;
                let violation = invariants::wrong_record(&self.scope, w, &status);
                self.write_status(&mut next, status, Some(number));
                self.push(out, next, violation, || {
                    format!("controller {number}: {status:?}")
                });
            }
            Move::Release if me.fresh => {
                let mut next = *w;
                Self::release(&mut next);
                self.changed(&mut next, Some(number));
                self.push(out, next, None, || {
                    format!("controller {number}: lets the object go")
                });
            }
            Move::Create { .. } | Move::Update { .. } | Move::Delete { .. } => {
                self.send(w, number, acting, step, out);
            }
            _ => {}
        }
    }

    pub(crate) fn release(w: &mut World) {
        w.object = Object::default();
        for id in &mut w.hubs {
            id.retained = id.on;
        }
        w.told = 0;
        w.acknowledged = 0;
        w.lossy = false;
    }

    pub(crate) fn write_status(&self, w: &mut World, status: Status, writer: Option<usize>) {
        let before = w.object.status;
        if (status.refused_hub, status.refused_hash) != (before.refused_hub, before.refused_hash) {
            w.later = false;
        }
        if status.transfer.initial || status.transfer.proceed || status.first != 0 {
            w.lossy = true;
        }
        w.object.status = status;
        if status.state == 2 && status.home != 0 && status.transfer.phase == 0 {
            w.told |= 1 << (status.home - 1);
        }
        self.changed(w, writer);
    }

    /// The call that a move stands for.
    pub(crate) fn call(&self, controller: &Controller, step: Move) -> (Call, bool) {
        let uid = controller.object.uid;
        let etag = |hub: u8| {
            let seen = controller.seen[usize::from(hub)].identity;
            if self.breaks_if_match() {
                255
            } else {
                seen.map_or(0, |id| id.etag)
            }
        };
        let blank = Call {
            uid,
            ..Call::default()
        };
        match step {
            Move::Create {
                hub,
                word,
                data,
                live,
            } => {
                let on = self.creates_enabled();
                (
                    Call {
                        kind: 1,
                        hub,
                        word,
                        data,
                        on,
                        ..blank
                    },
                    live,
                )
            }
            Move::Update {
                hub,
                on,
                word,
                keys,
                live,
            } => (
                Call {
                    kind: 2,
                    hub,
                    etag: etag(hub),
                    on,
                    word,
                    keys,
                    ..blank
                },
                live,
            ),
            Move::Delete { hub, live } => (
                Call {
                    kind: 3,
                    hub,
                    etag: etag(hub),
                    ..blank
                },
                live,
            ),
            _ => (Call::default(), false),
        }
    }

    fn send(&self, w: &World, number: usize, acting: Controller, step: Move, out: &mut Vec<Next>) {
        let (call, live) = self.call(&acting, step);
        if live && !acting.fresh && !self.skips_live_read() {
            return;
        }
        let hub = usize::from(call.hub);
        if acting.fresh && call.kind == 1 && acting.object.status.cleanup[hub].0 {
            self.push(out, *w, Some("a hub in cleanup was chosen"), || {
                format!("{call:?}")
            });
            return;
        }
        let mut next = *w;
        let mut after = acting;
        let violation = self.answer(&mut next, &mut after, &call);
        next.controllers[number] = after;
        self.push(out, next, violation, || {
            format!("controller {number}: {call:?}")
        });
        if w.in_flight() < self.scope.calls && w.down & 1 << call.hub == 0 {
            let mut late = *w;
            late.controllers[number].seen = Default::default();
            late.calls[w.in_flight()] = call;
            self.push(out, late, None, || {
                format!("controller {number} sends and dies: {call:?}")
            });
        }
    }

    /// A call that is answered: what the pass knows afterwards.
    pub(crate) fn answer(
        &self,
        w: &mut World,
        me: &mut Controller,
        call: &Call,
    ) -> Option<&'static str> {
        let hub = usize::from(call.hub);
        let busy = w.busy(me.object.uid) & 1 << call.hub != 0;
        let mut violation = None;
        if w.down & 1 << call.hub == 0 {
            let (reply, wrong) = hub::take(&self.scope, w, call);
            violation = wrong;
            let seen = &mut me.seen[hub];
            let was = *seen;
            *seen = Seen {
                acknowledged: was.acknowledged,
                twin: was.twin.filter(|_| call.kind == 2 && self.keeps_twins()),
                ..Seen::default()
            };
            match reply {
                Reply::Done(id) => {
                    seen.identity = Some(id);
                    seen.busy = busy;
                    seen.acknowledged |= call.kind == 2;
                }
                Reply::Exists => seen.exists = true,
                Reply::Refused => seen.trouble = 2,
                Reply::Failed => {}
            }
        } else {
            me.seen[hub].trouble = 1;
        }
        if !self.scope.split_reads {
            for seen in &mut me.seen {
                (seen.identity, seen.twin, seen.room, seen.busy) = (None, None, false, false);
            }
        }
        violation
    }

    pub(crate) fn environment(&self, w: &World, out: &mut Vec<Next>) {
        let s = self.scope;
        let mut env = |next: World, label: &str| self.push(out, next, None, || label.to_owned());
        if s.edits || w.object.uid == 0 {
            for want in (1..=s.hubs).filter(|want| *want != w.want) {
                env(
                    World { want, ..*w },
                    &format!("the operator wants hub {want}"),
                );
            }
        }
        if s.refuses {
            env(
                World {
                    refuses: w.refuses ^ 2,
                    ..*w
                },
                "hub B changes its mind about creates",
            );
        }
        for hub in (0..s.hubs).filter(|hub| s.outages & 1 << hub != 0) {
            env(
                World {
                    down: w.down ^ 1 << hub,
                    ..*w
                },
                &format!("outage of hub {hub} toggles"),
            );
        }
        for enrollment in (0..=s.enrollment).filter(|state| *state != w.enrollment) {
            env(
                World { enrollment, ..*w },
                &format!("Enrollment: {enrollment}"),
            );
        }
        if !w.later && w.object.status.refused_hub != 0 {
            env(World { later: true, ..*w }, "the backoff passes");
        }
        for hub in 0..s.hubs {
            for bit in 0..s.writes {
                if let Some(next) = hub::write_twin(w, hub, bit) {
                    env(next, &format!("the device writes {bit} at hub {hub}"));
                }
            }
            if s.disables
                && let Some(next) = hub::disable(w, hub)
            {
                env(
                    next,
                    &format!("the operator disables the device at hub {hub}"),
                );
            }
            let id = w.hubs[usize::from(hub)];
            if s.vanishes && id.ours && id.generation == w.object.status.generation {
                let mut next = *w;
                next.hubs[usize::from(hub)] = Id::default();
                next.lossy = true;
                env(next, &format!("the identity at hub {hub} vanishes"));
            }
        }
        self.object_edits(w, out);
    }

    fn object_edits(&self, w: &World, out: &mut Vec<Next>) {
        let s = self.scope;
        let mut edit = |object: Object, label: &str| {
            let mut next = *w;
            next.object = object;
            self.changed(&mut next, None);
            self.push(out, next, None, || label.to_owned());
        };
        let object = w.object;
        if object.uid == 0 {
            edit(register(w), "the device registers for the first time");
            return;
        }
        if s.deletes && !object.deleting {
            edit(
                Object {
                    deleting: true,
                    ..object
                },
                "the registration is deleted",
            );
        }
        if let Some(asks) = check_in(w, s.verify)
            && (s.verify
                || s.policy == 2
                || object.status.hash != w.want
                || object.status.state != 2)
        {
            edit(asks, "the device checks in");
        }
        if object.spec.trigger == 0 || object.status.trigger_done {
            for trigger in 1..=s.triggers {
                let mut wish = object;
                wish.spec.trigger = trigger;
                wish.status.trigger_done = false;
                edit(wish, &format!("the operator triggers mode {trigger}"));
            }
        }
    }

    #[cfg(feature = "mutants")]
    fn breaks(&self, mutant: rehome::domain::transfer::Mutant) -> bool {
        self.scope.mutant == Some(mutant)
    }

    fn breaks_if_match(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.breaks(rehome::domain::transfer::Mutant::NoIfMatch);
        #[cfg(not(feature = "mutants"))]
        false
    }

    fn creates_enabled(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.breaks(rehome::domain::transfer::Mutant::CreateEnabled);
        #[cfg(not(feature = "mutants"))]
        false
    }

    fn keeps_twins(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.breaks(rehome::domain::transfer::Mutant::NoReadAgain);
        #[cfg(not(feature = "mutants"))]
        false
    }

    fn skips_live_read(&self) -> bool {
        #[cfg(feature = "mutants")]
        return self.breaks(rehome::domain::transfer::Mutant::NoLiveRead);
        #[cfg(not(feature = "mutants"))]
        false
    }
}
