//! What a managed hub consists of: a pure function from the `IoTHub` and the image to objects.

use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use super::Hosting;
use super::drift::stamp;
use super::names::{IOTHUB, Names};
use super::secrets::DATABASE_URL;
use crate::api::v1alpha1::{HubResources, IoTHub, ManagedSpec, ResourceAmounts};

const HTTPS: i32 = 10443;
const MQTT: i32 = 8883;
const HEALTH: i32 = 8081;
/// User and group of the hub's process, to whom its volume belongs.
const USER: i64 = 65532;
const SIZE: &str = "1Gi";
/// The volume with the connection URL, of a hub that has a database.
pub(super) const DATABASE_VOLUME: &str = "postgres";

/// A kind of object that a hub consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    NetworkPolicy,
    PodDisruptionBudget,
    Service,
    StatefulSet,
}

/// An object as it should be, stamped with a digest of itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) object: Value,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Service => "Service",
            Self::StatefulSet => "StatefulSet",
        }
    }

    const fn api_version(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::PodDisruptionBudget => "policy/v1",
            Self::Service => "v1",
            Self::StatefulSet => "apps/v1",
        }
    }
}

/// Every object, in the order in which they are made.
pub(super) fn parts(
    hub: &IoTHub,
    managed: &ManagedSpec,
    image: &str,
    database: Option<&str>,
    hosting: &Hosting,
) -> Vec<Part> {
    let names = Names::of(hub);
    let part = |kind: Kind, spec: Value| {
        let mut object = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.as_str(),
            "metadata": metadata(hub, &names, &names.base),
            "spec": spec,
        });
        if kind == Kind::Service
            && let Some(service) = &managed.service
        {
            for (key, value) in service.annotations.iter().filter(|(key, _)| *key != IOTHUB) {
                object["metadata"]["annotations"][key] = value.as_str().into();
            }
        }
        stamp(&mut object);
        Part { kind, object }
    };
    vec![
        part(Kind::NetworkPolicy, network_policy(&names, managed)),
        part(Kind::PodDisruptionBudget, disruption_budget(&names)),
        part(Kind::Service, service(&names, managed)),
        part(
            Kind::StatefulSet,
            stateful_set(hub, managed, &names, image, database, hosting),
        ),
    ]
}

/// Name, labels and the reference by which the object goes with its `IoTHub`.
pub(super) fn metadata(hub: &IoTHub, names: &Names, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": hub.namespace(),
        "labels": names.labels(),
        "annotations": { IOTHUB: hub.name_any() },
        "ownerReferences": [{
            "apiVersion": IoTHub::api_version(&()),
            "kind": IoTHub::kind(&()),
            "name": hub.name_any(),
            "uid": hub.uid(),
            "controller": true,
        }],
    })
}

/// Devices and services come from anywhere, scrapes of metrics from pods; a hub calls nobody but its
/// database.
fn network_policy(names: &Names, managed: &ManagedSpec) -> Value {
    // Where the database is only its URL says, which is a secret.
    let egress = match managed.database_secret() {
        Some(_) => json!([{}]),
        None => json!([]),
    };
    json!({
        "podSelector": { "matchLabels": names.selector() },
        "policyTypes": ["Ingress", "Egress"],
        "egress": egress,
        "ingress": [
            { "ports": [{ "port": "https", "protocol": "TCP" }, { "port": "mqtts", "protocol": "TCP" }] },
            { "from": [{ "namespaceSelector": {} }], "ports": [{ "port": "health", "protocol": "TCP" }] },
        ],
    })
}

/// One pod at a time may be evicted, and one that is not ready always.
fn disruption_budget(names: &Names) -> Value {
    json!({
        "selector": { "matchLabels": names.selector() },
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    })
}

fn service(names: &Names, managed: &ManagedSpec) -> Value {
    let service = managed.service.clone().unwrap_or_default();
    let mut spec = json!({
        "type": service.type_.unwrap_or_default().as_str(),
        "selector": names.selector(),
        "ports": [port("https", 443), port("mqtts", MQTT)],
    });
    if let Some(class) = service.load_balancer_class {
        spec["loadBalancerClass"] = class.into();
    }
    spec
}

fn port(name: &str, port: i32) -> Value {
    json!({ "name": name, "port": port, "targetPort": name, "protocol": "TCP" })
}

fn stateful_set(
    hub: &IoTHub,
    managed: &ManagedSpec,
    names: &Names,
    image: &str,
    database: Option<&str>,
    hosting: &Hosting,
) -> Value {
    let storage = managed.storage.clone().unwrap_or_default();
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": storage.size.as_deref().unwrap_or(SIZE) } },
    });
    if let Some(class) = storage.storage_class_name {
        claim["storageClassName"] = class.into();
    }
    let mut template = json!({
        "metadata": { "labels": names.labels(), "annotations": { IOTHUB: hub.name_any() } },
        "spec": pod(hub, managed, names, image, hosting),
    });
    if let Some(digest) = database {
        // The hub reads the URL when it starts.
        template["metadata"]["annotations"]["rehome.dev/database"] = digest.into();
    }
    // A pod is changed in turn with those of other hubs, so what takes a field away has to show in
    // the template, too.
    stamp(&mut template);
    let mut set = json!({
        "replicas": 1,
        "serviceName": names.base,
        "selector": { "matchLabels": names.selector() },
        // A pod that cannot start is replaced by one of the next version; in order it would stay.
        "podManagementPolicy": "Parallel",
        // Between the end of the claim and that of the set, the set makes the claim anew: that one goes
        // with the set.
        "persistentVolumeClaimRetentionPolicy": {
            "whenDeleted": managed.deletion_policy(), "whenScaled": "Retain",
        },
        "template": template,
    });
    if managed.database_secret().is_none() {
        set["volumeClaimTemplates"] = json!([{
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "data", "labels": names.labels() },
            "spec": claim,
        }]);
    }
    set
}

fn pod(
    hub: &IoTHub,
    managed: &ManagedSpec,
    names: &Names,
    image: &str,
    hosting: &Hosting,
) -> Value {
    let certificate = managed.certificate_secret().unwrap_or(&names.certificate);
    let secret = |name: &str, secret: &str, items: &[&str]| {
        let items: Vec<_> = items
            .iter()
            .map(|item| json!({ "key": item, "path": item }))
            .collect();
        json!({ "name": name, "secret": { "secretName": secret, "items": items } })
    };
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(hub, managed, image, hosting)],
        "volumes": [
            secret("tls", certificate, &["tls.crt", "tls.key"]),
            secret("policies", &names.key, &["policies.json"]),
            // Whoever wants to see more of the hub makes it: there is none otherwise.
            json!({ "name": "log", "configMap": {
                "name": format!("{}-log", names.base), "optional": true,
            } }),
        ],
    });
    if let Some(database) = managed.database_secret()
        && let Some(volumes) = spec["volumes"].as_array_mut()
    {
        volumes.push(json!({ "name": DATABASE_VOLUME, "secret": { "secretName": database } }));
    }
    if !hosting.pull_secrets.is_empty() {
        let secrets = hosting
            .pull_secrets
            .iter()
            .map(|name| json!({ "name": name }));
        spec["imagePullSecrets"] = secrets.collect();
    }
    spec
}

fn container(hub: &IoTHub, managed: &ManagedSpec, image: &str, hosting: &Hosting) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({ "httpGet": { "path": path, "port": "health" },
            "periodSeconds": period, "failureThreshold": failures })
    };
    let port =
        |name: &str, port: i32| json!({ "name": name, "containerPort": port, "protocol": "TCP" });
    let mount = |name: &str, path: &str, read_only: bool| {
        let mut mount = json!({ "name": name, "mountPath": path });
        if read_only {
            mount["readOnly"] = true.into();
        }
        mount
    };
    let (store, data) = match managed.database_secret() {
        None => (
            "--store=/var/lib/rehome/devices.redb".to_owned(),
            mount("data", "/var/lib/rehome", false),
        ),
        Some(_) => (
            format!("--store-postgres=/etc/rehome/postgres/{DATABASE_URL}"),
            mount(DATABASE_VOLUME, "/etc/rehome/postgres", true),
        ),
    };
    json!({
        "name": "hub",
        "image": image,
        "imagePullPolicy": hosting.pull_policy,
        "args": [
            "hub",
            format!("--host-name={}", hub.spec.host_name),
            store,
            "--tls-cert=/etc/rehome/tls/tls.crt",
            "--tls-key=/etc/rehome/tls/tls.key",
            "--policies=/etc/rehome/policies/policies.json",
            "--log-from=/etc/rehome/log/filter",
            format!("--https-address=0.0.0.0:{HTTPS}"),
            format!("--mqtt-address=0.0.0.0:{MQTT}"),
            format!("--health-address=0.0.0.0:{HEALTH}"),
        ],
        "ports": [port("https", HTTPS), port("mqtts", MQTT), port("health", HEALTH)],
        // After kill -9 the store may have to be repaired first.
        "startupProbe": probe("/livez", 2, 150),
        "readinessProbe": probe("/readyz", 5, 3),
        "livenessProbe": probe("/livez", 10, 6),
        "resources": resources(managed.resources.as_ref()),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        // The last words of a hub that cannot go on stand in the condition.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            data,
            mount("tls", "/etc/rehome/tls", true),
            mount("policies", "/etc/rehome/policies", true),
            mount("log", "/etc/rehome/log", true),
        ],
    })
}

fn resources(resources: Option<&HubResources>) -> Value {
    let Some(HubResources { requests, limits }) = resources else {
        return json!({ "requests": { "cpu": "50m", "memory": "128Mi" }, "limits": { "memory": "512Mi" } });
    };
    let mut object = json!({});
    for (name, amounts) in [("requests", requests), ("limits", limits)] {
        if let Some(ResourceAmounts { cpu, memory }) = amounts {
            for (resource, amount) in [("cpu", cpu), ("memory", memory)] {
                if let Some(amount) = amount {
                    object[name][resource] = amount.as_str().into();
                }
            }
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1alpha1::GROUP;

    fn hub(spec: &Value) -> IoTHub {
        serde_json::from_value(json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "IoTHub",
            "metadata": { "name": "west", "namespace": "plant", "uid": "u" },
            "spec": { "hostName": "west.example.com", "managed": spec },
        }))
        .unwrap()
    }

    fn made(spec: &Value) -> Vec<Part> {
        let hub = hub(spec);
        let managed = hub.spec.managed.clone().unwrap();
        parts(
            &hub,
            &managed,
            "registry.example/rehome:1",
            None,
            &Hosting::default(),
        )
    }

    fn of(parts: &[Part], kind: Kind) -> Value {
        parts
            .iter()
            .find(|part| part.kind == kind)
            .unwrap()
            .object
            .clone()
    }

    #[test]
    fn every_object_goes_with_its_hub_and_says_whose_it_is() {
        for Part { kind, object } in made(&json!({})) {
            let metadata = &object["metadata"];
            assert_eq!(metadata["name"], "iothub-west", "{kind:?}");
            assert_eq!(metadata["ownerReferences"][0]["uid"], "u", "{kind:?}");
            assert_eq!(metadata["annotations"][IOTHUB], "west", "{kind:?}");
            assert_eq!(
                metadata["labels"]["rehome.dev/component"], "hub",
                "{kind:?}"
            );
        }
    }

    #[test]
    fn what_the_spec_says_is_in_the_objects() {
        let parts = made(&json!({
            "storage": { "size": "5Gi", "storageClassName": "fast" },
            "resources": { "requests": { "cpu": "2" }, "limits": { "memory": "2Gi" } },
            "service": { "type": "LoadBalancer", "loadBalancerClass": "example.com/lb",
                "annotations": { "external-dns/hostname": "west.example.com" } },
            "certificate": { "secretRef": { "name": "bought" } },
            "deletionPolicy": "Delete",
        }));
        let set = of(&parts, Kind::StatefulSet);
        let claim = &set["spec"]["volumeClaimTemplates"][0]["spec"];
        assert_eq!(claim["resources"]["requests"]["storage"], "5Gi");
        assert_eq!(claim["storageClassName"], "fast");
        let kept = &set["spec"]["persistentVolumeClaimRetentionPolicy"];
        assert_eq!(kept["whenDeleted"], "Delete");
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"][0]["secret"]["secretName"], "bought");
        assert_eq!(
            pod["containers"][0]["resources"],
            json!({ "requests": { "cpu": "2" }, "limits": { "memory": "2Gi" } })
        );
        let service = of(&parts, Kind::Service);
        assert_eq!(service["spec"]["type"], "LoadBalancer");
        assert_eq!(service["spec"]["loadBalancerClass"], "example.com/lb");
        let annotations = &service["metadata"]["annotations"];
        assert_eq!(annotations["external-dns/hostname"], "west.example.com");
    }

    #[test]
    fn a_hub_in_postgresql_has_no_volume_and_starts_anew_with_another_url() {
        let hub = hub(&json!({ "storage": { "postgres": { "secretRef": { "name": "db" } } } }));
        let managed = hub.spec.managed.clone().unwrap();
        let made = |digest| parts(&hub, &managed, "image", Some(digest), &Hosting::default());
        let set = of(&made("one"), Kind::StatefulSet);
        assert_eq!(set["spec"]["volumeClaimTemplates"], Value::Null);
        let pod = &set["spec"]["template"]["spec"];
        let mut volumes = pod["volumes"].as_array().unwrap().iter();
        let database = volumes.find(|one| one["name"] == DATABASE_VOLUME).unwrap();
        assert_eq!(database["secret"]["secretName"], "db");
        let arguments = pod["containers"][0]["args"].to_string();
        assert!(arguments.contains("--store-postgres=/etc/rehome/postgres/url"));
        assert!(!arguments.contains("--store="));
        assert_eq!(
            of(&made("one"), Kind::NetworkPolicy)["spec"]["egress"],
            json!([{}])
        );
        let other = of(&made("two"), Kind::StatefulSet);
        assert_ne!(set["spec"]["template"], other["spec"]["template"]);
    }

    #[test]
    fn equal_specs_give_equal_objects_and_others_another_stamp() {
        assert_eq!(made(&json!({})), made(&json!({})));
        let stamp = |spec| of(&made(&spec), Kind::StatefulSet)["metadata"]["annotations"].clone();
        let other = json!({ "resources": { "requests": { "cpu": "2" } } });
        assert_ne!(stamp(json!({})), stamp(other));
    }
}
