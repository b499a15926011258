//! The modules of a device that moves to another hub.
//!
//! Which ones there are is known at Commit and written with it: the fence holds modules too. They
//! are created at the target before the source goes. Hubs of ours take them while the mark holds the
//! target, each create bound to the etag of the target's identity: nobody writes to a module there
//! before all are there, and what arrives after the target was enabled does nothing. Other hubs take
//! no modules for a disabled device: there they follow once it is enabled.
//!
//! What a hub does not take is written into the transfer, and told when it closes.

use super::Mutant;
use super::facts::{Facts, Next, wait_for};
use super::relocate::wait_for_source;
use super::step::{Call, Effect, Look, Standing, Step};
use super::view::TroubleKind;
use crate::api::v1alpha1::{HubRef, ModuleNote, Reason, Transfer, TransferData};
use crate::domain::identity::Identity;
use crate::domain::module::Module;

/// Stands for modules that nobody knows.
const ANY: &str = "*";

/// The modules of a source whose hub does not list them with the identity, and what is to be told of
/// them. Asked for before the move begins, because such hubs show none of a disabled device.
pub(super) fn listed(
    f: &Facts<'_>,
    home: &HubRef,
    data: TransferData,
    is_enabled: bool,
) -> Next<(Vec<String>, Vec<ModuleNote>)> {
    let view = f.views.of(&home.uid);
    let is_moot = data == TransferData::Initial || view.trouble.is_some();
    if is_moot || f.carries_modules(home) {
        return Ok((Vec::new(), Vec::new()));
    }
    if !is_enabled {
        let note = ModuleNote {
            module: ANY.to_owned(),
            left: true,
            why: format!("{} lists none of a disabled device", home.host_name),
        };
        return Ok((Vec::new(), vec![note]));
    }
    let look = || Step::Look(Look::Modules(home.clone()));
    let modules = view.modules.clone().ok_or_else(look)?;
    Ok((modules, Vec::new()))
}

/// The modules to carry, as they are known at Commit.
pub(super) fn at_commit(f: &Facts<'_>, t: &Transfer, source: Option<&Identity>) -> Vec<String> {
    match (t.data, source) {
        (TransferData::Initial, _) => Vec::new(),
        (TransferData::Migrate, Some(source)) if f.carries_modules(&t.from.hub) => {
            source.module_ids()
        }
        (TransferData::Migrate, _) => t.modules.clone(),
    }
}

/// The next step towards having all modules at the target; `None` when there is nothing left to do.
pub(super) fn carry(f: &Facts<'_>, t: &Transfer, target: &Identity) -> Next<Option<Step>> {
    if t.modules.is_empty() || f.breaks(Mutant::LeavesModules) {
        return Ok(None);
    }
    let mut lost = None;
    match f.reach(&t.from.hub)? {
        // Two names may lead to one hub: the target has its modules then.
        Ok(source)
            if source.is_none_or(|known| {
                known.generation_id != t.from.generation_id
                    || known.generation_id == target.generation_id
            }) =>
        {
            return Ok(None);
        }
        Ok(_) => {}
        Err(trouble) => {
            let is_over = matches!(trouble.kind, TroubleKind::Missing | TroubleKind::Refused);
            if !t.proceed_without_source && !is_over {
                return Ok(Some(wait_for_source(&trouble)));
            }
            lost = Some(trouble.message);
        }
    }
    let there = at_target(f, t, target)?;
    for id in &t.modules {
        if t.has_left(id) {
            continue;
        }
        if let Some(why) = obstacle(f, t, id) {
            return Ok(Some(note(f, t, id, why, true)));
        }
        if there.contains(id) {
            continue;
        }
        if let Some(why) = lost {
            return Ok(Some(note(f, t, id, why, true)));
        }
        let Some(known) = f.views.of(&t.from.hub.uid).read_modules.get(id) else {
            return Err(Step::Look(Look::Module(t.from.hub.clone(), id.clone())));
        };
        if let Some(module) = known {
            return Ok(Some(create(f, t, target, module)));
        }
    }
    Ok(None)
}

/// What people should know of the modules once the move is over; empty when all of them moved.
pub(super) fn told(t: &Transfer) -> String {
    let notes = t.module_notes.iter().map(|note| {
        let fate = if note.left { "stayed behind" } else { "moved" };
        let what = match note.module.as_str() {
            ANY => "any modules".to_owned(),
            id => format!("module {id}"),
        };
        format!("; {what} {fate}: {}", note.why)
    });
    notes.collect()
}

fn at_target(f: &Facts<'_>, t: &Transfer, target: &Identity) -> Next<Vec<String>> {
    if f.carries_modules(&t.to.hub) {
        return Ok(target.module_ids());
    }
    let view = f.views.of(&t.to.hub.uid);
    if let Some(trouble) = &view.trouble {
        return Err(wait_for(trouble));
    }
    let look = || Step::Look(Look::Modules(t.to.hub.clone()));
    view.modules.clone().ok_or_else(look)
}

/// Why a module cannot be carried.
fn obstacle(f: &Facts<'_>, t: &Transfer, id: &str) -> Option<String> {
    let to = &t.to.hub;
    if let Some(why) = f.views.of(&to.uid).refused_modules.get(id) {
        return Some(why.clone());
    }
    if id.starts_with('$') {
        return Some("it belongs to IoT Edge itself, which makes it anew".to_owned());
    }
    let is_mute = !f.carries_modules(to) && !t.from.original.enabled;
    is_mute.then(|| format!("{} takes no modules of a disabled device", to.host_name))
}

fn create(f: &Facts<'_>, t: &Transfer, target: &Identity, module: &Module) -> Step {
    let is_noted = t.module_notes.iter().any(|note| note.module == module.id);
    if module.authentication.is_none() && !is_noted {
        let (from, to) = (&t.from.hub.host_name, &t.to.hub.host_name);
        let why = format!("with new keys of {to}, because {from} did not show the old ones");
        return note(f, t, &module.id, why, false);
    }
    let holds = f.carries_modules(&t.to.hub);
    let etag = holds.then_some(target.etag.as_str());
    let call = Call::CreateModule(Box::new(module.copy(&target.device_id, etag)));
    if holds {
        Effect::cached(&t.to.hub, call)
    } else {
        Effect::live(&t.to.hub, call)
    }
}

/// Writes down what becomes of a module that does not move whole.
fn note(f: &Facts<'_>, t: &Transfer, id: &str, why: String, left: bool) -> Step {
    let mut status = f.status.clone();
    let mut transfer = t.clone();
    transfer.module_notes.retain(|note| note.module != id);
    let message = format!("module {id}: {why}");
    transfer.module_notes.push(ModuleNote {
        module: id.to_owned(),
        left,
        why,
    });
    status.transfer = Some(transfer);
    f.record(status, Standing::Working, Reason::MigrateData, message)
        .into_step()
}
