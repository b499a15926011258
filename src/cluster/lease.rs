//! The Lease by which one of several controllers is the active one.
//!
//! The algorithm of Kubernetes' own components: a holder that was not seen to renew for the
//! duration *of the watcher's own clock* may be replaced, so clocks need not agree. It keeps two
//! controllers from doing the same work twice; safety never rests on it. Whoever cannot renew in
//! time must stop before another may start.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error as KubeError};
use tokio::time::{Instant, sleep, timeout};

use crate::clock::Clock;

/// How long a lease holds without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// Whoever has not renewed for this long gives up, well before anyone else may take over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the holder renews.
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// How often the others look, and how soon a failed renewal is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// A claim on a lease.
pub struct LeaseClaim {
    api: Api<Lease>,
    name: String,
    identity: String,
    clock: Arc<dyn Clock>,
}

/// A lease that is held, as last written.
pub struct HeldLease {
    claim: LeaseClaim,
    lease: Lease,
    renewed_at: Instant,
}

/// Who was last seen to hold the lease, and since when on our own clock.
struct Sighting {
    spec: Option<LeaseSpec>,
    at: Instant,
}

impl LeaseClaim {
    /// A claim by `identity`, which no other process may use.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            clock,
        }
    }

    /// Waits until the lease is ours.
    pub async fn acquire(self) -> HeldLease {
        let mut sighting: Option<Sighting> = None;
        loop {
            match timeout(RENEW_DEADLINE, self.try_acquire(&mut sighting)).await {
                Ok(Ok(Some(lease))) => {
                    tracing::info!(
                        lease = self.name,
                        identity = self.identity,
                        "holds the lease"
                    );
                    return HeldLease {
                        claim: self,
                        lease,
                        renewed_at: Instant::now(),
                    };
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.name, %error, "the lease cannot be read or taken");
                }
                Err(_) => tracing::warn!(lease = self.name, "the API server does not answer"),
            }
            sleep(RETRY_EVERY).await;
        }
    }

    async fn try_acquire(
        &self,
        sighting: &mut Option<Sighting>,
    ) -> Result<Option<Lease>, KubeError> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = self.claimed(Lease::default());
            return raced(self.api.create(&PostParams::default(), &lease).await);
        };
        if self.is_free(&lease, sighting) {
            let lease = self.claimed(lease);
            let params = PostParams::default();
            return raced(self.api.replace(&self.name, &params, &lease).await);
        }
        Ok(None)
    }

    /// Whether nobody holds it, or whoever does was not seen to renew for its whole duration.
    fn is_free(&self, lease: &Lease, sighting: &mut Option<Sighting>) -> bool {
        let now = Instant::now();
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_deref());
        if holder.is_none_or(|holder| holder.is_empty() || holder == self.identity) {
            return true;
        }
        match sighting {
            Some(seen) if seen.spec == lease.spec => now.duration_since(seen.at) > DURATION,
            _ => {
                *sighting = Some(Sighting {
                    spec: lease.spec.clone(),
                    at: now,
                });
                false
            }
        }
    }

    /// The lease with us as its holder, as of now.
    fn claimed(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(self.clock.now());
        let old = lease.spec.take().unwrap_or_default();
        let is_ours = old.holder_identity.as_deref() == Some(&self.identity);
        lease.metadata = ObjectMeta {
            name: Some(self.name.clone()),
            managed_fields: None,
            ..lease.metadata
        };
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_ours {
                old.acquire_time
            } else {
                Some(now.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(
                old.lease_transitions
                    .map_or(0, |known| known + i32::from(!is_ours)),
            ),
            ..old
        });
        lease
    }
}

impl HeldLease {
    /// Renews until that fails for too long or someone else holds the lease; then the caller must
    /// stop at once.
    pub async fn lost(&mut self) {
        let mut pause = RENEW_EVERY;
        loop {
            sleep(pause).await;
            let left = RENEW_DEADLINE.saturating_sub(self.renewed_at.elapsed());
            if left.is_zero() {
                tracing::error!(
                    lease = self.claim.name,
                    "the lease could not be renewed in time"
                );
                return;
            }
            let tried_at = Instant::now();
            match timeout(left, self.renew()).await {
                Ok(Ok(true)) => {
                    self.renewed_at = tried_at;
                    pause = RENEW_EVERY;
                }
                Ok(Ok(false)) => {
                    tracing::error!(lease = self.claim.name, "another process holds the lease");
                    return;
                }
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.claim.name, %error, "the lease was not renewed");
                    pause = RETRY_EVERY;
                }
                Err(_) => pause = Duration::ZERO,
            }
        }
    }

    /// Lets another process take over at once. Call it only when nothing works any more under
    /// this lease.
    pub async fn release(mut self) {
        if let Some(spec) = &mut self.lease.spec {
            spec.holder_identity = None;
        }
        let params = PostParams::default();
        let written = self
            .claim
            .api
            .replace(&self.claim.name, &params, &self.lease);
        if !matches!(timeout(RETRY_EVERY, written).await, Ok(Ok(_))) {
            tracing::warn!(
                lease = self.claim.name,
                "the lease could not be released; it runs out"
            );
        }
    }

    /// `false` when it is not ours any more.
    async fn renew(&mut self) -> Result<bool, KubeError> {
        let claim = &self.claim;
        let next = claim.claimed(self.lease.clone());
        match claim
            .api
            .replace(&claim.name, &PostParams::default(), &next)
            .await
        {
            Ok(lease) => {
                self.lease = lease;
                Ok(true)
            }
            // A write of ours whose answer was lost, or someone else's: only a look tells.
            Err(KubeError::Api(status)) if status.is_conflict() => {
                let lease = claim.api.get(&claim.name).await?;
                let holder = lease
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.holder_identity.as_deref());
                let is_ours = holder == Some(&claim.identity);
                self.lease = lease;
                Ok(is_ours)
            }
            Err(error) => Err(error),
        }
    }
}

/// Somebody else was faster: not an error, only not ours.
fn raced(result: Result<Lease, KubeError>) -> Result<Option<Lease>, KubeError> {
    match result {
        Ok(lease) => Ok(Some(lease)),
        Err(KubeError::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
