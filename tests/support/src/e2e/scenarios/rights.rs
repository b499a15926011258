//! The Roles grant what is used, and nothing else: what the API server has written down of the whole run
//! is compared with them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use rehome_testing::Requests;
use rehome_testing::device::Protocol;
use serde_json::Value;

use crate::ground::{Ground, claim, eventually};
use crate::plant::registrar;

const NAMESPACE: &str = "rehome-system";
/// What anybody may do who is known: find out what there is.
const EVERYBODY: [&str; 2] = ["", "nonResource"];

/// A verb on a resource, such as `patch rehome.dev/enrollments/status`.
type Rights = BTreeSet<String>;

pub(crate) async fn play(ground: &mut Ground) -> Result<()> {
    delete_with_enrollment(ground).await?;
    delete_volume_with_hub(ground).await?;
    poll_what_is_unknown(ground).await?;
    let requests = ground.place.cluster().audit()?.since(ground.began)?;
    for (part, roles) in [
        (
            "controller",
            &["clusterrole/rehome-controller", "role/rehome-controller"][..],
        ),
        ("gateway", &["clusterrole/rehome-gateway"]),
    ] {
        let user = format!("system:serviceaccount:{NAMESPACE}:rehome-{part}");
        let mut granted = Rights::new();
        for role in roles {
            granted.extend(grants(
                &ground
                    .shell
                    .run(&format!("kubectl -n {NAMESPACE} get {role} -o json"))
                    .await?,
            )?);
        }
        let Asked { used, refused } = Asked::by(&requests.by(&user));
        println!(
            "  {part}: {} rights granted, {} used",
            granted.len(),
            used.len()
        );
        let idle: Vec<_> = granted.difference(&used).collect();
        ensure!(
            idle.is_empty(),
            "granted to the {part} and never used, if all scenarios were played: {idle:#?}"
        );
        ensure!(refused.is_empty(), "refused to the {part}: {refused:#?}");
        claim(
            &format!(
                "the {part} uses every right that it is granted, and was refused nothing for good"
            ),
            !used.is_empty(),
        )?;
    }
    gateway_reads_no_hub(ground).await
}

/// What somebody asked for, and was given or not.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    used: Rights,
    /// With namespace and name, and only what was not given later: a Role may be on its way to the
    /// API server, and one that has just started may not have read its Roles yet.
    refused: BTreeSet<(String, String, String)>,
}

impl Asked {
    fn by(requests: &Requests) -> Self {
        let mut asked = Self::default();
        for request in &requests.0 {
            if EVERYBODY.contains(&&*request.resource) {
                continue;
            }
            let (verb, group) = (&request.verb, &request.group);
            let target = [&*request.resource, &*request.subresource].join("/");
            let right = format!("{verb} {group}/{}", target.trim_end_matches('/'));
            let what = (
                right.clone(),
                request.namespace.clone(),
                request.name.clone(),
            );
            if request.forbidden {
                asked.refused.insert(what);
                continue;
            }
            asked.refused.remove(&what);
            // A watch that begins with all there is takes the place of a list, where the server can do
            // it; an apply of what is not there yet creates it, and needs that right.
            let stands_for = match &*request.verb {
                "watch" if request.uri.contains("sendInitialEvents=true") => Some("list"),
                "patch" if request.code == 201 => Some("create"),
                _ => None,
            };
            asked
                .used
                .extend(stands_for.map(|other| right.replacen(&**verb, other, 1)));
            asked.used.insert(right);
        }
        asked
    }
}

/// Tried with the token of the gateway, in a namespace where it may read the keys of an Enrollment.
async fn gateway_reads_no_hub(ground: &Ground) -> Result<()> {
    let gateway = ground
        .place
        .cluster()
        .client_as(NAMESPACE, "rehome-gateway")
        .await?;
    let kubeconfig = gateway.kubeconfig.to_string_lossy().into_owned();
    let as_gateway = [("KUBECONFIG", &*kubeconfig)];
    let read = async |what: &str| {
        let command = format!("kubectl -n plant get {what} -o name 2>&1 || true");
        ground.shell.run_with(&command, &as_gateway).await
    };
    let own = read("secret/robots-keys").await?;
    ensure!(
        own.trim() == "secret/robots-keys",
        "the gateway reads keys of an Enrollment: {own}"
    );
    for what in ["secret/iothub-west-key", "secret/iothub-ca", "secrets"] {
        let there = format!("kubectl -n plant get {what} -o name");
        ground.shell.run(&there).await?;
        let said = read(what).await?;
        claim(
            &format!("the gateway may not read {what}"),
            said.contains("Forbidden"),
        )?;
    }
    Ok(())
}

/// A right that only those need who ask for it: registrations that go with their Enrollment.
async fn delete_with_enrollment(ground: &Ground) -> Result<()> {
    ground
        .block(
            "kubectl -n first patch enrollment presses --type=merge -p '{\"spec\":{\"deletionPolicy\":\"Delete\"}}'\n\
             kubectl -n first wait enrollment/presses --timeout=60s \
             --for=jsonpath='{.metadata.finalizers[0]}'=rehome.dev/registry\n\
             kubectl -n first delete pod press-1 --timeout=1m\n\
             kubectl -n first delete enrollment presses --timeout=2m",
        )
        .await?;
    eventually("the registration to go with its Enrollment", async || {
        let left = ground
            .shell
            .run("kubectl -n first get devreg -o name")
            .await?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
    .await?;
    let what = "the gateway's Role to go with the last Secret that it needs";
    eventually(what, async || {
        let left = "kubectl -n first get role,rolebinding -o name";
        let left = ground.shell.run(left).await?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
    .await
}

/// As [`delete_with_enrollment`], for the volume of a hub; one that is at hand, which nobody refers to.
async fn delete_volume_with_hub(ground: &Ground) -> Result<()> {
    ground
        .block(
            "kubectl -n first patch iothub hub --type=merge -p '{\"spec\":{\"managed\":{\"deletionPolicy\":\"Delete\"}}}'\n\
             kubectl -n first delete iothub hub --timeout=2m",
        )
        .await?;
    eventually("the volume to go with its hub", async || {
        let left = ground.shell.run("kubectl -n first get pvc -o name").await?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
    .await
}

/// As [`delete_with_enrollment`], for a device that polls an operation that the gateway has not seen: as a
/// rule it has, but another replica may be ahead.
async fn poll_what_is_unknown(ground: &Ground) -> Result<()> {
    let plant = ground.plant().await?;
    let registrar = registrar(&ground.shell).await?;
    let device = plant.applicant("robot-0");
    let told = registrar.register(&device, Protocol::Https, None).await?;
    let (ours, _) = told.operation_id.rsplit_once('.').context("an operation")?;
    let unknown = format!("{ours}.00000000-0000-4000-8000-000000000000");
    let mut line = registrar.line().await?;
    let reply = line.ask(&device.poll_request(&unknown)?).await?;
    claim(
        "of an operation that is nowhere a device learns that",
        reply.code == 404,
    )
}

fn grants(role: &str) -> Result<Rights> {
    let role: Value = serde_json::from_str(role)?;
    let mut rights = Rights::new();
    let words = |rule: &Value, name: &str| -> Vec<String> {
        let list = rule[name].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    for rule in role["rules"].as_array().context("a Role has rules")? {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                for verb in words(rule, "verbs") {
                    rights.insert(format!("{verb} {group}/{resource}"));
                }
            }
        }
    }
    Ok(rights)
}

#[cfg(test)]
mod tests {
    use rehome_testing::Request;

    use super::*;

    fn request(verb: &str, name: &str, code: u16, forbidden: bool) -> Request {
        Request {
            user: "gateway".into(),
            verb: verb.into(),
            group: String::new(),
            resource: "secrets".into(),
            subresource: String::new(),
            namespace: "plant".into(),
            name: name.into(),
            uri: String::new(),
            code,
            forbidden,
            received: "2026-01-01T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_refusal_counts_unless_the_same_is_given_later() {
        let list = |name, given| {
            let code = if given { 200 } else { 403 };
            request("list", name, code, !given)
        };
        let refused = |requests: Vec<Request>| {
            let refused = Asked::by(&Requests(requests)).refused;
            refused.len()
        };
        assert_eq!(refused(vec![list("keys", false), list("keys", true)]), 0);
        assert_eq!(refused(vec![list("keys", true), list("keys", false)]), 1);
        assert_eq!(refused(vec![list("keys", false), list("other", true)]), 1);
    }

    #[test]
    fn an_apply_that_creates_uses_two_rights() {
        let used = |code| Asked::by(&Requests(vec![request("patch", "keys", code, false)])).used;
        assert_eq!(used(200), ["patch /secrets".to_owned()].into());
        let both = ["create /secrets".to_owned(), "patch /secrets".to_owned()];
        assert_eq!(used(201), both.into());
    }
}
