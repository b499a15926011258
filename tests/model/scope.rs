//! How large a world is and what may happen in it.

/// A bounded world. Ids, edits, moves, crashes and lives of the registration are not bounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) name: &'static str,
    pub(crate) hubs: u8,
    /// Calls in flight at once.
    pub(crate) calls: usize,
    /// Every read of a hub is a step of its own, and may be old when it is decided on.
    pub(crate) split_reads: bool,
    /// Controllers may act on an arbitrarily old cached object.
    pub(crate) stale: bool,
    /// Starts without a record instead of with a device at hub A.
    pub(crate) first: bool,
    /// The operator changes the hub that allocation wants.
    pub(crate) edits: bool,
    /// 0 absent, 1 `MigrateData`, 2 `ResetData`, 3 `Never`, 4 absent and sticky.
    pub(crate) policy: u8,
    /// Highest trigger mode that the operator uses; 0 none.
    pub(crate) triggers: u8,
    pub(crate) deletes: bool,
    pub(crate) retain: bool,
    /// Highest state of the Enrollment: 1 disabled, 2 missing too.
    pub(crate) enrollment: u8,
    /// Hub B refuses creates now and then.
    pub(crate) refuses: bool,
    /// Hubs, as bits, that are unreachable now and then.
    pub(crate) outages: u8,
    /// The home's identity is deleted by other hands.
    pub(crate) vanishes: bool,
    /// The operator disables the device at its hub.
    pub(crate) disables: bool,
    /// Distinct twin writes of the device.
    pub(crate) writes: u8,
    /// Hub A holds a device that is not ours at the start.
    pub(crate) foreign: bool,
    pub(crate) proceed: bool,
    /// Devices that come back ask for a home check.
    pub(crate) verify: bool,
    #[cfg(feature = "mutants")]
    pub(crate) mutant: Option<rehome::domain::transfer::Mutant>,
}

impl Scope {
    /// Two hubs, one call in flight, a device at hub A, an operator who changes his mind.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            hubs: 2,
            calls: 1,
            split_reads: false,
            stale: false,
            first: false,
            edits: true,
            policy: 1,
            triggers: 0,
            deletes: false,
            retain: false,
            enrollment: 0,
            refuses: false,
            outages: 0,
            vanishes: false,
            disables: false,
            writes: 0,
            foreign: false,
            proceed: false,
            verify: false,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}
