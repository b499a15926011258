//! What has been read of the hubs since the status that a decision rests on.
//!
//! Views are dropped with every status write: hub reads older than the status decide nothing.

use std::collections::BTreeMap;

use crate::domain::identity::Identity;
use crate::domain::module::Module;
use crate::domain::twin::Twin;

/// Views of all hubs, by the uid of the `IoTHub`.
#[derive(Clone, Debug, Default)]
pub struct Views {
    hubs: BTreeMap<String, View>,
    reads: u32,
}

/// What has been read of one hub.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The identity; the outer `None` means not read.
    pub identity: Option<Option<Identity>>,
    /// The twin and the number of the read that brought it.
    pub twin: Option<(Option<Twin>, u32)>,
    /// Whether the hub can take another device.
    pub room: Option<Room>,
    /// Ids of the device's modules, where the hub was asked for them.
    pub modules: Option<Vec<String>>,
    /// Modules that were read; `None` where the device has none of that id.
    pub read_modules: BTreeMap<String, Option<Module>>,
    /// Modules that the hub refused to create, and why.
    pub refused_modules: BTreeMap<String, String>,
    /// Why the last call to the hub brought nothing.
    pub trouble: Option<Trouble>,
    /// A create was answered with "already exists": look before creating.
    pub exists: bool,
    /// A write to the identity was acknowledged.
    pub acknowledged: bool,
    /// A call of this registration to the hub could still act when the identity was read: that
    /// nothing was there proves nothing.
    pub in_flight: bool,
}

/// Whether a hub can take another device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It can, or does not say.
    Free,
    /// It holds as many as it may.
    Full {
        /// Its limit.
        limit: u64,
    },
}

/// Why a call to a hub brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The class.
    pub kind: TroubleKind,
    /// Hub, call and cause, for people.
    pub message: String,
}

/// Class of a hub's trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// There is no such `IoTHub`.
    Missing,
    /// Its credentials are gone: the Secret does not exist or cannot be used.
    NoCredentials,
    /// It does not answer, or failed in a way that may pass.
    Unreachable,
    /// It refuses our credentials.
    Unauthorized,
    /// It asks to slow down.
    Throttled,
    /// It refuses for good: full, wrong tier, bad request.
    Refused,
}

impl Views {
    /// The view of a hub.
    pub fn of(&self, hub_uid: &str) -> &View {
        static NOTHING: View = View::NOTHING;
        self.hubs.get(hub_uid).unwrap_or(&NOTHING)
    }

    /// The view of a hub, to be filled.
    pub fn of_mut(&mut self, hub_uid: &str) -> &mut View {
        self.hubs.entry(hub_uid.to_owned()).or_default()
    }

    /// Puts in a twin that was just read.
    pub fn saw_twin(&mut self, hub_uid: &str, twin: Option<Twin>) {
        self.reads += 1;
        let read = self.reads;
        self.of_mut(hub_uid).twin = Some((twin, read));
    }

    /// Whether the twin of `one` was read after that of `other`.
    pub fn is_read_after(&self, one: &str, other: &str) -> bool {
        let number = |uid: &str| self.of(uid).twin.as_ref().map_or(0, |(_, read)| *read);
        number(one) > number(other)
    }
}

impl View {
    const NOTHING: Self = Self {
        identity: None,
        twin: None,
        room: None,
        modules: None,
        read_modules: BTreeMap::new(),
        refused_modules: BTreeMap::new(),
        trouble: None,
        exists: false,
        acknowledged: false,
        in_flight: false,
    };

    /// Forgets what was read, because it may have changed.
    pub fn forget(&mut self) {
        self.identity = None;
        self.twin = None;
        self.room = None;
        self.modules = None;
        self.read_modules.clear();
        self.in_flight = false;
    }
}

impl TroubleKind {
    /// Whether waiting may help without anybody doing anything.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unreachable | Self::Throttled)
    }
}
