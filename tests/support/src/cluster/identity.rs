//! Acting as a ServiceAccount, with the rights that it has and no others.

use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{AuthInfo, Kubeconfig, NamedAuthInfo};
use kube::{Api, Client};

use super::{Cluster, connect};
use crate::warden::scratch;

/// Longer than any test run; the API server allows no less than ten minutes.
const TOKEN_SECONDS: i64 = 6 * 3600;

/// A ServiceAccount with a token that the API server issued for it.
pub struct Identity {
    /// The name of the user in RBAC and in the audit log.
    pub user: String,
    /// A client that acts as it.
    pub client: Client,
    /// A kubeconfig file that acts as it, for processes.
    pub kubeconfig: PathBuf,
    /// The token itself.
    pub token: String,
}

impl Cluster {
    /// Requests a token for an existing ServiceAccount.
    pub async fn client_as(&self, namespace: &str, service_account: &str) -> Result<Identity> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(service_account, &PostParams::default(), &request)
            .await
            .with_context(|| {
                format!("no token for ServiceAccount {namespace}/{service_account}")
            })?;
        let token = answer
            .status
            .context("a TokenRequest without an answer")?
            .token;
        let kubeconfig = self.kubeconfig_with(&token, service_account)?;
        Ok(Identity {
            user: format!("system:serviceaccount:{namespace}:{service_account}"),
            client: connect(&kubeconfig).await?,
            kubeconfig,
            token,
        })
    }

    /// The administrator's kubeconfig with the user replaced.
    fn kubeconfig_with(&self, token: &str, name: &str) -> Result<PathBuf> {
        let mut config = Kubeconfig::read_from(&self.access.kubeconfig)?;
        let current = config
            .current_context
            .clone()
            .context("kubeconfig has no context")?;
        config.contexts.retain(|context| context.name == current);
        let context = config
            .contexts
            .first_mut()
            .and_then(|named| named.context.as_mut());
        context
            .context("the kubeconfig's current context is missing")?
            .user = Some(name.into());
        let user = AuthInfo {
            token: Some(token.to_owned().into()),
            ..AuthInfo::default()
        };
        config.auth_infos = vec![NamedAuthInfo {
            name: name.into(),
            auth_info: Some(user),
            ..Default::default()
        }];
        let file = scratch("identity")?.join(format!("{name}.kubeconfig"));
        std::fs::write(&file, serde_json::to_vec(&config)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}
