//! A device with a TPM registers over HTTPS, request by request, so that each may go to another
//! gateway.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Tpm, TpmHeldKey};
use crate::device::{Line, Registrar};

/// A device whose keys are in a TPM, before it has a hub.
#[derive(Clone, Copy)]
pub struct TpmApplicant<'a> {
    pub tpm: &'a Tpm,
    pub scope: &'a str,
    pub registration_id: &'a str,
    /// Such as `2019-03-31`.
    pub api_version: &'a str,
}

impl<'a> TpmApplicant<'a> {
    /// Shows the keys of the TPM, and opens the challenge that is the answer.
    pub async fn challenge(&self, at: &Registrar) -> Result<TpmHeldKey<'a>> {
        let (code, body) = self.ask(at, "PUT", "register", None).await?;
        ensure!(code == 401, "the gateway answered {code}: {body}");
        let blob = body["authenticationKey"].as_str();
        let blob = blob.with_context(|| format!("no challenge but {body}"))?;
        self.tpm.activate(blob, "challenge")
    }

    /// The token that a challenge's key signs.
    pub fn token(&self, key: &TpmHeldKey<'_>) -> Result<String> {
        let resource = format!("{}/registrations/{}", self.scope, self.registration_id);
        key.token(&resource, Some("registration"))
    }

    /// Asks to be registered: how the operation stands.
    pub async fn register(&self, at: &Registrar, token: &str) -> Result<Value> {
        self.must(at, "PUT", "register", token).await
    }

    /// Asks how the operation stands.
    pub async fn poll(&self, at: &Registrar, token: &str, operation: &str) -> Result<Value> {
        let what = format!("operations/{operation}");
        self.must(at, "GET", &what, token).await
    }

    async fn must(&self, at: &Registrar, method: &str, what: &str, token: &str) -> Result<Value> {
        let (code, body) = self.ask(at, method, what, Some(token)).await?;
        let is_fine = matches!(code, 200 | 202);
        ensure!(is_fine, "the gateway answered {code}: {body}");
        Ok(body)
    }

    /// One request, on a connection of its own.
    async fn ask(
        &self,
        at: &Registrar,
        method: &str,
        what: &str,
        token: Option<&str>,
    ) -> Result<(u16, Value)> {
        let body = match method {
            "PUT" => json!({ "registrationId": self.registration_id, "tpm": {
                "endorsementKey": self.tpm.endorsement_key()?,
                "storageRootKey": self.tpm.storage_root_key()?,
            } })
            .to_string(),
            _ => String::new(),
        };
        let token = token.map(|token| format!("Authorization: {token}\r\n"));
        let request = format!(
            "{method} /{}/registrations/{}/{what}?api-version={} HTTP/1.1\r\n\
             Host: gateway\r\n{}Content-Length: {}\r\n\r\n{body}",
            self.scope,
            self.registration_id,
            self.api_version,
            token.unwrap_or_default(),
            body.len()
        );
        let mut line = Line::connect(&at.host, at.https, &at.trust).await?;
        let reply = line.ask(request.as_bytes()).await?;
        Ok((reply.code, reply.json()?))
    }
}
