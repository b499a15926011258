//! A slow look around at every hub: disabled leftovers with our mark that no record explains, and
//! homes that vanished.
//!
//! Removes only what cannot be another's: a fenced source of a move carries our mark too, and
//! other installations may share the hub. A leftover of a registration that this process never
//! knew is counted and logged, never removed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::{Api, ResourceExt as _};
use tokio::time::{Instant, sleep_until};

use super::context::Context;
use crate::api::v1alpha1::{ConditionType, DeviceRegistration, HubRef, IoTHub, is_true};
use crate::cluster::apply::{Class, bounded};
use crate::registry::{HubClient, HubError, MarkedIdentity};

/// Between two rounds over all hubs.
const ROUND: Duration = Duration::from_mins(10);
/// A leftover is left alone until it was seen for this long.
const MIN_AGE: Duration = Duration::from_mins(15);
/// Homes that one round looks at per hub.
const HOMES: usize = 20;
/// Pages of leftovers that one round reads per hub.
const PAGES: usize = 10;
/// Leftovers that are remembered.
const REMEMBERED: usize = 10_000;

/// Sweeps for ever.
pub async fn run(ctx: Arc<Context>) {
    let mut sweep = Sweep::default();
    let mut next = Instant::now() + ROUND;
    loop {
        sleep_until(next).await;
        next = Instant::now() + ROUND;
        sweep.round(&ctx).await;
    }
}

/// What one round tells the next.
#[derive(Default)]
pub struct Sweep {
    /// When each leftover was first seen, by hub and device.
    first_seen: HashMap<(String, String), Duration>,
    /// The last home looked at, by hub.
    visited: HashMap<String, String>,
}

impl Sweep {
    /// One look at every hub that is Ready.
    pub async fn round(&mut self, ctx: &Context) {
        let oldest = ctx.clock.monotonic().saturating_sub(ctx.call_life());
        ctx.ledger.forget_before(oldest);
        let hubs = ctx.stores.hubs.state();
        let known: HashSet<_> = hubs.iter().filter_map(|hub| hub.uid()).collect();
        self.first_seen.retain(|(hub, _), _| known.contains(hub));
        self.visited.retain(|hub, _| known.contains(hub));
        for hub in hubs {
            let status = hub.status.as_ref();
            let ready =
                status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready));
            let Ok(client) = ctx.hubs.get(&HubRef::of(&hub)) else {
                continue;
            };
            if !ready {
                continue;
            }
            let looked = match self.leftovers(ctx, &hub, &client).await {
                Ok(()) => self.homes(ctx, &hub, &client).await,
                error => error,
            };
            if let Err(error) = looked {
                tracing::debug!(%error, "the sweep of a hub ends early");
            }
        }
    }

    async fn leftovers(
        &mut self,
        ctx: &Context,
        hub: &IoTHub,
        client: &HubClient,
    ) -> Result<(), HubError> {
        let hub_uid = hub.uid().unwrap_or_default();
        let mut seen = HashSet::new();
        let mut continuation = None;
        for _ in 0..PAGES {
            let (page, next) = client.marked(continuation.as_deref()).await?;
            for leftover in page {
                let registration = &leftover.mark.registration;
                if ctx.index.refers(registration, &hub_uid) {
                    continue;
                }
                seen.insert(leftover.device_id.clone());
                self.leftover(ctx, hub, client, &leftover).await?;
            }
            continuation = next;
            if continuation.is_none() {
                self.first_seen
                    .retain(|(hub, device), _| *hub != hub_uid || seen.contains(device));
                break;
            }
        }
        Ok(())
    }

    async fn leftover(
        &mut self,
        ctx: &Context,
        hub: &IoTHub,
        client: &HubClient,
        leftover: &MarkedIdentity,
    ) -> Result<(), HubError> {
        let now = ctx.clock.monotonic();
        let key = (hub.uid().unwrap_or_default(), leftover.device_id.clone());
        if !self.first_seen.contains_key(&key) && self.first_seen.len() >= REMEMBERED {
            return Ok(());
        }
        let since = *self.first_seen.entry(key.clone()).or_insert(now);
        if now.saturating_sub(since) < MIN_AGE {
            return Ok(());
        }
        let (host, device) = (&hub.spec.host_name, &leftover.device_id);
        if !self.is_surely_left(ctx, &key.0, leftover).await {
            ctx.metrics.leftover("unknown");
            tracing::warn!(
                hub = host, device, mark = %leftover.mark,
                "a disabled device carries a mark of an operator, and no registration here \
                 explains it; if no other cluster uses this hub, delete the device"
            );
            return Ok(());
        }
        let identity = client.read(device).await?;
        let Some(identity) = identity.filter(|identity| {
            !identity.enabled && identity.mark().as_ref() == Some(&leftover.mark)
        }) else {
            return Ok(());
        };
        client.delete(device, &identity.etag).await?;
        ctx.metrics.leftover("removed");
        tracing::info!(hub = host, device, mark = %leftover.mark, "a leftover was removed");
        self.first_seen.remove(&key);
        Ok(())
    }

    /// Whether the registration of the mark is one of ours and, as the API server says now, has
    /// nothing to do with this hub.
    async fn is_surely_left(
        &self,
        ctx: &Context,
        hub_uid: &str,
        leftover: &MarkedIdentity,
    ) -> bool {
        let uid = &leftover.mark.registration;
        let Some(object) = ctx.index.find(uid) else {
            return ctx.departed.contains(uid);
        };
        let namespace = object.namespace.unwrap_or_default();
        let api: Api<DeviceRegistration> = Api::namespaced(ctx.client.clone(), &namespace);
        match bounded(api.get(&object.name)).await {
            Ok(live) if live.uid().as_ref() == Some(uid) => {
                // The watch may lag behind; the index of the live object may not.
                !super::entry::Entry::of(&live)
                    .hubs
                    .iter()
                    .any(|hub| hub == hub_uid)
                    && live
                        .status
                        .as_ref()
                        .is_some_and(|status| status.home.is_some())
            }
            Ok(_) => true,
            Err(error) => error.class() == Class::Gone,
        }
    }

    /// Looks whether some of the devices that should live at a hub do.
    async fn homes(
        &mut self,
        ctx: &Context,
        hub: &IoTHub,
        client: &HubClient,
    ) -> Result<(), HubError> {
        let hub_uid = hub.uid().unwrap_or_default();
        let after = self.visited.get(&hub_uid).cloned().unwrap_or_default();
        for uid in ctx.index.some_homes(&hub_uid, &after, HOMES) {
            self.visited.insert(hub_uid.clone(), uid.clone());
            let Some((device, _)) = ctx.index.home_of(&uid) else {
                continue;
            };
            if client.read(&device).await?.is_none()
                && let Some(object) = ctx.index.find(&uid)
            {
                tracing::warn!(
                    hub = hub.spec.host_name,
                    device,
                    "a device is not at its home"
                );
                ctx.home_checks.want(&uid);
                ctx.triggers.registration(object);
            }
        }
        Ok(())
    }
}
