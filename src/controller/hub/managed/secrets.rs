//! The Secrets of a managed hub: its service key, its certificate, and the authority behind it.
//!
//! Key and authority are created once and never overwritten: they change when a person deletes or
//! replaces them, and no pass of ours can do that by accident. The certificate is renewed.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::certificate::{self, Pair, Unusable, is_signed_by, judge, judge_authority, renewal};
use super::names::AUTHORITY;
use super::objects::metadata;
use super::{Names, is_owned, name_taken};
use crate::api::v1alpha1::{IoTHub, ManagedSpec, Reason};
use crate::cluster::apply::{ApplyError, CONTROLLER, Class, bounded};
use crate::controller::context::Context;
use crate::controller::hub::access::{read_secret, value};
use crate::controller::status::{Error, Verdict};
use crate::domain::hex;

/// Key of the connection string in the Secret with the service key.
pub(in crate::controller::hub) const CONNECTION_STRING: &str = "connectionString";
/// Key of the connection URL in the Secret of a database.
pub(super) const DATABASE_URL: &str = "url";
/// Key of what the hub reads in the same Secret.
const POLICIES: &str = "policies.json";
/// The shared access policy that the controller acts by.
const POLICY: &str = "rehome";
/// Between looks at Secrets that nobody changes: a certificate may end.
const AT_THE_LATEST: SignedDuration = SignedDuration::from_hours(24);

/// What the Secrets were found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Secrets {
    pub(super) certificate: Verdict,
    /// What is wrong with the service key, or with the URL of the database.
    pub(super) problem: Option<Verdict>,
    /// Changes with the URL of the database.
    pub(super) database: Option<String>,
    /// When this has to be found out again.
    pub(super) until: Timestamp,
}

impl Secrets {
    #[cfg(test)]
    pub(super) fn for_tests(until: Timestamp) -> Self {
        Self {
            certificate: Verdict::yes(Reason::Settled, ""),
            problem: None,
            database: None,
            until,
        }
    }
}

/// Makes what is missing and renews what ends; reads only what may have changed.
pub(super) async fn settle(
    hub: &IoTHub,
    managed: &ManagedSpec,
    ctx: &Context,
) -> Result<Secrets, Error> {
    let (uid, generation) = (hub.uid().unwrap_or_default(), hub.meta().generation);
    let now = ctx.clock.now();
    let (known, touches) = ctx.memory.secrets(&uid, generation, now);
    if let Some(known) = known {
        return Ok(known);
    }
    let mut problem = key(hub, ctx).await?;
    let mut database = None;
    if let Some(name) = managed.database_secret() {
        match database_url(hub, name, ctx).await? {
            Ok(digest) => database = Some(digest),
            Err(verdict) => problem = problem.or(Some(verdict)),
        }
    }
    let (certificate, until) = match managed.certificate_secret() {
        Some(name) => bought(hub, name, ctx).await?,
        None => made(hub, ctx).await?,
    };
    let latest = now.checked_add(AT_THE_LATEST).unwrap_or(Timestamp::MAX);
    let found = Secrets {
        certificate,
        problem,
        database,
        until: until.unwrap_or(latest).min(latest),
    };
    ctx.memory.read(&uid, generation, touches, found.clone());
    Ok(found)
}

/// The service key: what is wrong with its Secret, if anything is.
async fn key(hub: &IoTHub, ctx: &Context) -> Result<Option<Verdict>, Error> {
    let names = Names::of(hub);
    let Some(secret) = read_secret(hub, ctx, &names.key).await? else {
        let primary = random_key(ctx);
        let policies = json!({ "policies": [{
            "name": POLICY,
            "permissions": ["RegistryRead", "RegistryWrite", "ServiceConnect"],
            "primaryKey": *primary,
            "secondaryKey": *random_key(ctx),
        }] });
        let connection = format!(
            "HostName={};SharedAccessKeyName={POLICY};SharedAccessKey={}",
            hub.spec.host_name, *primary
        );
        let policies = policies.to_string();
        let data = [(POLICIES, &*policies), (CONNECTION_STRING, &*connection)];
        let secret = secret(&metadata(hub, &names, &names.key), "Opaque", data);
        return create(hub, ctx, &names.key, &secret).await;
    };
    if !is_owned(&secret, hub) {
        return Ok(Some(name_taken("Secret", &names.key)));
    }
    for key in [POLICIES, CONNECTION_STRING] {
        if value(&secret, key).is_none() {
            let message = format!(
                "Secret {} has no key {key}; delete the Secret to have a new service key made",
                names.key
            );
            return Ok(Some(Verdict::no(Reason::SecretInvalid, message)));
        }
    }
    Ok(None)
}

/// A digest of the URL of the database, with which the pod has to start anew.
async fn database_url(
    hub: &IoTHub,
    name: &str,
    ctx: &Context,
) -> Result<Result<String, Verdict>, Error> {
    let Some(secret) = read_secret(hub, ctx, name).await? else {
        let message = format!("Secret {name} with the URL of the hub's database does not exist");
        return Ok(Err(Verdict::no(Reason::SecretMissing, message)));
    };
    let Some(url) = value(&secret, DATABASE_URL) else {
        let message = format!(
            "Secret {name} has no key {DATABASE_URL}; put the connection URL of PostgreSQL there \
             (postgres://USER:PASSWORD@HOST:5432/DATABASE)"
        );
        return Ok(Err(Verdict::no(Reason::SecretInvalid, message)));
    };
    Ok(Ok(hex(&digest(&SHA256, &url).as_ref()[..8])))
}

/// A certificate that somebody else keeps.
async fn bought(
    hub: &IoTHub,
    name: &str,
    ctx: &Context,
) -> Result<(Verdict, Option<Timestamp>), Error> {
    let Some(secret) = read_secret(hub, ctx, name).await? else {
        let message = format!("Secret {name} with the hub's certificate does not exist");
        return Ok((Verdict::no(Reason::SecretMissing, message), None));
    };
    let judged = pair(&secret).and_then(|pair| judge(&pair, &hub.spec.host_name, ctx.clock.now()));
    Ok(match judged {
        Ok(until) => {
            let message = format!("the certificate in Secret {name} is good until {until}");
            (Verdict::yes(Reason::Settled, message), Some(until))
        }
        Err(why) => {
            let message = format!("the certificate in Secret {name} cannot be used: {why}");
            (Verdict::no(Reason::CertificateInvalid, message), None)
        }
    })
}

/// A certificate of the namespace's own authority.
async fn made(hub: &IoTHub, ctx: &Context) -> Result<(Verdict, Option<Timestamp>), Error> {
    let (names, now) = (Names::of(hub), ctx.clock.now());
    let authority = match authority(hub, ctx).await? {
        Ok(authority) => authority,
        Err(verdict) => return Ok((verdict, None)),
    };
    let there = read_secret(hub, ctx, &names.certificate).await?;
    if there.as_ref().is_some_and(|there| !is_owned(there, hub)) {
        return Ok((name_taken("Secret", &names.certificate), None));
    }
    let good = |until| {
        let message = format!(
            "the certificate of authority {AUTHORITY} is good until {until} and renewed before"
        );
        (Verdict::yes(Reason::Settled, message), Some(renewal(until)))
    };
    let current = there.as_ref().and_then(|there| pair(there).ok());
    let current = current.filter(|pair| is_signed_by(&pair.chain, &authority.chain, now));
    let until = current.and_then(|pair| judge(&pair, &hub.spec.host_name, now).ok());
    if let Some(until) = until.filter(|until| now < renewal(*until)) {
        return Ok(good(until));
    }
    let issued = certificate::issue(&hub.spec.host_name, &authority, now)
        .and_then(|pair| Ok((judge(&pair, &hub.spec.host_name, now)?, pair)));
    let (until, pair) = match issued {
        Ok(issued) => issued,
        Err(why) => {
            let message = format!("Secret {AUTHORITY} makes no certificate for this hub: {why}");
            return Ok((Verdict::no(Reason::CertificateInvalid, message), None));
        }
    };
    let data = [
        ("tls.crt", &*pair.chain),
        ("tls.key", &**pair.key),
        ("ca.crt", &*authority.chain),
    ];
    let mut secret = secret(&metadata(hub, &names, &names.certificate), TLS, data);
    if let Some(there) = &there {
        secret["metadata"]["uid"] = there.uid().into();
    }
    let params = PatchParams::apply(CONTROLLER).force();
    let (api, patch) = (api(hub, ctx), Patch::Apply(&secret));
    match bounded(api.patch(&names.certificate, &params, &patch)).await {
        Ok(_) => {
            tracing::info!(%until, "a certificate was made");
            Ok(good(until))
        }
        Err(error) => Ok((refused(hub, &names.certificate, error)?, None)),
    }
}

/// The namespace's authority, made where there is none. It stays when hubs go, so that devices that
/// trust it trust the hubs that come, too.
async fn authority(hub: &IoTHub, ctx: &Context) -> Result<Result<Pair, Verdict>, Error> {
    let namespace = hub.namespace().unwrap_or_default();
    if let Some(secret) = read_secret(hub, ctx, AUTHORITY).await? {
        let judged = pair(&secret).and_then(|pair| judge_authority(&pair).map(|()| pair));
        return Ok(judged.map_err(|why| {
            let message = format!("Secret {AUTHORITY} holds no usable authority: {why}");
            Verdict::no(Reason::CertificateInvalid, message)
        }));
    }
    let made = match certificate::authority(&namespace, ctx.clock.now()) {
        Ok(made) => made,
        Err(why) => {
            return Ok(Err(Verdict::no(
                Reason::CertificateInvalid,
                why.to_string(),
            )));
        }
    };
    let metadata = json!({
        "name": AUTHORITY, "namespace": namespace,
        "labels": { "app.kubernetes.io/managed-by": "rehome" },
    });
    let data = [
        ("tls.crt", &*made.chain),
        ("tls.key", &**made.key),
        ("ca.crt", &*made.chain),
    ];
    Ok(
        match create(hub, ctx, AUTHORITY, &secret(&metadata, TLS, data)).await? {
            Some(verdict) => Err(verdict),
            None => Ok(made),
        },
    )
}

/// Type of a Secret with a certificate.
const TLS: &str = "kubernetes.io/tls";

/// A Secret with these texts. Encoded here: the API server's `stringData` is not for apply.
fn secret<const N: usize>(metadata: &Value, type_: &str, texts: [(&str, &str); N]) -> Value {
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let data = texts.map(|(key, text)| (key.to_owned(), encode(text).into()));
    let data: serde_json::Map<String, Value> = data.into_iter().collect();
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": type_, "data": data })
}

fn api(hub: &IoTHub, ctx: &Context) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), &hub.namespace().unwrap_or_default())
}

/// Creates a Secret; one that somebody else was faster with is an error, after which it is read.
async fn create(
    hub: &IoTHub,
    ctx: &Context,
    name: &str,
    secret: &Value,
) -> Result<Option<Verdict>, Error> {
    let params = PostParams {
        field_manager: Some(CONTROLLER.to_owned()),
        ..PostParams::default()
    };
    let failed = |error: ApplyError| Error::new("creating a Secret", &hub.name_any(), error);
    let secret = serde_json::from_value(secret.clone())
        .map_err(|error| failed(kube::Error::SerdeError(error).into()))?;
    match bounded(api(hub, ctx).create(&params, &secret)).await {
        Ok(_) => {
            tracing::info!(secret = name, "a Secret was made");
            Ok(None)
        }
        Err(error) => refused(hub, name, error).map(Some),
    }
}

/// A refusal that stays becomes a verdict; all else is tried again.
fn refused(hub: &IoTHub, name: &str, error: ApplyError) -> Result<Verdict, Error> {
    match error.refusal() {
        Some(why) if error.class() != Class::Conflict => {
            let message = format!("the API server refuses Secret {name}: {why}");
            Ok(Verdict::no(Reason::PartRefused, message))
        }
        _ => Err(Error::new("writing a Secret", &hub.name_any(), error)),
    }
}

fn pair(secret: &Secret) -> Result<Pair, Unusable> {
    let text = |key: &str| {
        let bytes = value(secret, key).ok_or_else(|| Unusable(format!("it has no key {key}")))?;
        let text = std::str::from_utf8(&bytes);
        text.map(|text| Zeroizing::new(text.to_owned()))
            .map_err(|_| Unusable(format!("{key} is not text")))
    };
    Ok(Pair {
        chain: text("tls.crt")?.to_string(),
        key: text("tls.key")?,
    })
}

/// 32 random bytes, as Azure makes them.
fn random_key(ctx: &Context) -> Zeroizing<String> {
    let bytes: Zeroizing<Vec<u8>> =
        Zeroizing::new([ctx.random.bytes(), ctx.random.bytes()].concat());
    Zeroizing::new(BASE64_STANDARD.encode(&*bytes))
}
