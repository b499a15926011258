//! For every reason, the ways in which it shows.

use rehome::api::v1alpha1::Reason;
use serde_json::{Value, json};

use super::case::{
    Case, begun, disabled, enrollment, enrollment_spec, failed, hub, managed, moving, ready,
    refused, told, with, working,
};
use super::objects::{condition, hub_ref};

const UNREACHABLE: &str = "hub-west.example.com: probe: no answer within 10 s; see whether the hub \
                           is up and its endpoint can be reached from the controller";

/// Every way in which the operator shows a reason. The match has no wildcard: a new reason needs a
/// case.
#[expect(clippy::too_many_lines, reason = "one entry for each reason")]
pub(crate) fn cases(reason: Reason) -> Vec<Case> {
    let one = match reason {
        Reason::Settled => ready(reason, "verified at hub-west.example.com"),
        Reason::InitialAssignment => {
            return vec![
                ready(reason, "assigned to hub-west.example.com"),
                begun(reason, "assigning to hub-west.example.com"),
                working(reason, "assigning to hub-west.example.com"),
            ];
        }
        Reason::Adopted => ready(
            reason,
            "took over the device that hub-west.example.com already had",
        ),
        Reason::PolicyNever => with(ready(reason, "stays at hub-west.example.com"), |objects| {
            enrollment_spec(objects)["reprovisionPolicy"] = json!("Never");
            objects.status()["policy"] = json!("Never");
        }),
        Reason::StickyApiVersion => {
            with(ready(reason, "stays at hub-west.example.com"), |objects| {
                enrollment_spec(objects)["reprovisionPolicy"] = Value::Null;
                objects.registrations[0]["spec"]["request"]["apiVersion"] = json!("2017-11-15");
                objects.status()["policy"] = json!("Sticky");
            })
        }
        Reason::SameHub | Reason::CredentialRefreshed => {
            ready(reason, "stays at hub-west.example.com")
        }
        Reason::MigrateData => {
            return vec![
                moving(
                    "Open",
                    begun(
                        reason,
                        "moving the device from hub-west.example.com to hub-east.example.com",
                    ),
                ),
                moving(
                    "Committed",
                    begun(
                        reason,
                        "the copy at hub-east.example.com is complete; switching over",
                    ),
                ),
            ];
        }
        Reason::ResetData => with(
            moving(
                "Open",
                begun(reason, "resetting the device at hub-west.example.com"),
            ),
            |objects| objects.status()["transfer"]["to"]["hub"] = hub_ref("hub-west"),
        ),
        Reason::WantedHubUnavailable => {
            return vec![
                with(ready(reason, "stays at hub-west.example.com"), |objects| {
                    enrollment_spec(objects)["allocation"]["hubs"] =
                        json!(["hub-east", "hub-west"]);
                    enrollment_spec(objects)["allocation"]["policy"] = json!("Hashed");
                    objects.hub("hub-east")["spec"]["allocation"] =
                        json!({ "weight": 1000, "cordoned": true });
                }),
                with(
                    working(
                        reason,
                        "waiting for IoTHub hub-east, which cannot take the device now",
                    ),
                    |objects| {
                        objects.hub("hub-east")["spec"]["allocation"] = json!({ "cordoned": true });
                    },
                ),
            ];
        }
        Reason::NoHubAvailable => with(
            working(
                reason,
                "none of the Enrollment's hubs is ready and uncordoned; see kubectl get iothub",
            ),
            |objects| objects.hub("hub-west")["spec"]["allocation"] = json!({ "cordoned": true }),
        ),
        Reason::NoHubs => with(
            failed(
                reason,
                400_208,
                "the Enrollment matches no IoTHub; create one or name one in allocation.hubs",
            ),
            |objects| objects.hubs.clear(),
        ),
        Reason::RefusedBefore => refused(reason, "stays at hub-west.example.com"),
        Reason::Moved => with(
            ready(
                reason,
                "moved from hub-east.example.com to hub-west.example.com",
            ),
            |objects| {
                let status = objects.status();
                status["substatus"] = json!("DeviceDataMigrated");
                status["history"] = json!([{
                    "operationId": "4.press.0", "state": "Assigned", "substatus": "InitialAssignment",
                    "assignedHub": "hub-east.example.com", "reason": "InitialAssignment",
                    "completedAt": "2026-05-03T18:00:00.000000Z",
                }]);
            },
        ),
        Reason::Reset => with(
            ready(reason, "reset to the initial twin at hub-west.example.com"),
            |objects| {
                objects.status()["substatus"] = json!("DeviceDataReset");
                enrollment_spec(objects)["reprovisionPolicy"] = json!("ResetData");
            },
        ),
        Reason::MoveAborted => refused(
            reason,
            "stays at hub-west.example.com: the move was given up",
        ),
        Reason::TargetRefused => {
            return vec![
                refused(
                    reason,
                    "stays at hub-west.example.com: hub-east.example.com is full (500 devices); free some or raise its limit",
                ),
                moving(
                    "Aborting",
                    working(
                        reason,
                        "hub-east.example.com is full (500 devices); free some or raise its limit",
                    ),
                ),
            ];
        }
        Reason::TargetOccupied => refused(
            reason,
            "stays at hub-west.example.com: hub-east.example.com already has a device press-7 that is not ours; delete it there or keep the device where it is",
        ),
        Reason::SameHubTwoNames => refused(
            reason,
            "stays at hub-west.example.com: IoTHubs hub-west and hub-east lead to one hub; delete one of them",
        ),
        Reason::TargetUnreachable => moving(
            "Open",
            working(
                reason,
                "hub-east.example.com: create device: no answer within 10 s",
            ),
        ),
        Reason::SourceUnreachable => moving(
            "Open",
            working(
                reason,
                "hub-west.example.com: read device: no answer within 10 s",
            ),
        ),
        Reason::HubUnreachable => {
            return vec![hub(reason, UNREACHABLE), working(reason, UNREACHABLE)];
        }
        Reason::HubUnauthorized => {
            let cause = "hub-west.example.com: probe: the hub refuses the credentials (401); correct the connection string in the hub's Secret";
            return vec![hub(reason, cause), working(reason, cause)];
        }
        Reason::HubThrottled => {
            let cause = "hub-west.example.com: probe: the hub asks to slow down (429)";
            return vec![hub(reason, cause), working(reason, cause)];
        }
        Reason::HubRefused => {
            return vec![
                hub(
                    reason,
                    "hub-west.example.com: probe: refused (403): the hub is not active",
                ),
                failed(
                    reason,
                    403_201,
                    "hub-west.example.com: create device: refused (403): the hub is full",
                ),
            ];
        }
        Reason::HubMissing => moving(
            "Open",
            working(
                reason,
                "IoTHub hub-east (hub-east.example.com) does not exist any more",
            ),
        ),
        Reason::DeviceIdTaken => failed(
            reason,
            409_201,
            "device id press-7 at hub-west.example.com belongs to another registration (uid-press-8); give this Enrollment another deviceId or delete that registration",
        ),
        Reason::ExistingDeviceRefused => failed(
            reason,
            409_201,
            "hub-west.example.com already has a device press-7 and IoTHub hub-west refuses existing devices; delete the device there or set existingDevices to Adopt",
        ),
        Reason::EnrollmentDisabled => disabled(),
        Reason::EnrollmentMissing => with(
            failed(
                reason,
                404_201,
                "the Enrollment was deleted; create one that enrolls this device",
            ),
            |objects| objects.enrollments.clear(),
        ),
        Reason::EnrollmentInvalid => with(
            working(
                reason,
                "Secret line-3-keys of Enrollment line-3 does not exist; create it",
            ),
            |objects| {
                let cause = "Secret line-3-keys does not exist; create it with the keys primaryKey and secondaryKey";
                objects.enrollments[0]["status"]["conditions"] =
                    json!([condition("Ready", "False", "SecretMissing", cause)]);
            },
        ),
        Reason::Deleting => told(
            "The registration is being deleted.",
            ready(Reason::Settled, "verified at hub-west.example.com"),
            |objects| {
                objects.registrations[0]["metadata"]["deletionTimestamp"] =
                    json!("2026-05-04T11:00:00Z");
                let cause = "";
                objects.status()["conditions"] =
                    json!([condition("Ready", "False", "Deleting", cause)]);
            },
        ),
        Reason::HomeFound => ready(reason, "the device lives at hub-west.example.com"),
        Reason::HomeLost => begun(
            reason,
            "the device vanished from hub-west.example.com and from every other hub; assigning it to hub-west.example.com afresh",
        ),
        Reason::CleaningUp => with(
            failed(reason, 404_201, "nothing is left at hub-east.example.com"),
            |objects| objects.enrollments.clear(),
        ),
        Reason::HostTaken => hub(
            reason,
            "IoTHub hub-old is older and has the host hub-west.example.com; one hub must not have two names, so use that one, or delete it first",
        ),
        Reason::SecretMissing => {
            return vec![
                hub(
                    reason,
                    "Secret hub-west-credentials does not exist; create it with the service connection string of hub-west.example.com under the key connectionString",
                ),
                enrollment(
                    reason,
                    "Secret line-3-keys does not exist; create it with the keys primaryKey and secondaryKey (base64 of 16 to 64 random bytes each) and the label rehome.dev/attestation=true",
                ),
                working(
                    reason,
                    "Secret hub-west-credentials does not exist; create it with the service connection string of hub-west.example.com under the key connectionString",
                ),
            ];
        }
        Reason::SecretNotLabelled => enrollment(
            reason,
            "Secret line-3-keys is not labelled rehome.dev/attestation=true; label it to let the gateway read it",
        ),
        Reason::SecretInvalid => {
            return vec![
                hub(
                    reason,
                    "connectionString in Secret hub-west-credentials is for hub-north.example.com, not for hub-west.example.com; each hub needs its own",
                ),
                enrollment(
                    reason,
                    "Secret line-3-keys: primaryKey is missing; put the base64 of 16 to 64 random bytes there",
                ),
            ];
        }
        Reason::SecretIsHubCredential => enrollment(
            reason,
            "Secret line-3-keys holds the credentials of IoTHub hub-west; use another Secret for the devices' keys, because the gateway may read it",
        ),
        Reason::CertificateInvalid => enrollment(
            reason,
            "x509.clientCertificates.primary: the certificate cannot be read; give one in PEM",
        ),
        Reason::EndorsementKeyInvalid => enrollment(
            reason,
            "tpm.endorsementKey is no TPM2B_PUBLIC; give what tpm2_readpublic -f tss writes, in base64",
        ),
        Reason::CertificateUnverified => enrollment(
            reason,
            "x509.signingCertificates.primary vouches for no device until you prove that you hold its key: put a certificate with the common name 3F0A, signed by it, into x509.verification.primary",
        ),
        Reason::ConnectionInvalid => hub(
            reason,
            "spec.connection.caBundle holds no certificate that can be read; give the PEM of the hub's authority",
        ),
        Reason::LeftBehind => told(
            "something of the device may be left at hub-east.example.com",
            ready(
                Reason::Moved,
                "moved from hub-east.example.com to hub-west.example.com; hub-east.example.com is cleaned up later",
            ),
            |objects| {
                let mut left = hub_ref("hub-east");
                left["since"] = json!("2026-05-04T10:00:00.000000Z");
                objects.status()["cleanup"] = json!([left]);
            },
        ),
        Reason::SelectorInvalid => enrollment(
            reason,
            "allocation.hubSelector cannot be read: the operator In needs values",
        ),
        Reason::Conflict => enrollment(
            reason,
            "Enrollment press-7-old is older and for the same registration id (case does not count); it decides, and this one is ignored: delete one of them",
        ),
        Reason::HubNotFound => {
            return vec![
                enrollment(
                    reason,
                    "IoTHub hub-nort in allocation.hubs does not exist in this namespace; create it or take it off the list",
                ),
                working(
                    reason,
                    "spec.reprovision.hub names IoTHub hub-nort, which does not exist",
                ),
            ];
        }
        Reason::InitialTwinInvalid => enrollment(
            reason,
            "no hub takes this initialTwin: properties.desired is larger than 32 KiB",
        ),
        Reason::InUse => with(
            hub(
                reason,
                "1 registrations refer to this hub, for example press-7; it goes when they have moved to another hub or are deleted",
            ),
            |objects| {
                objects.hub("hub-west")["metadata"]["deletionTimestamp"] =
                    json!("2026-05-04T09:00:00Z");
            },
        ),
        Reason::WorkloadStarting => managed(
            reason,
            "the pod of StatefulSet iothub-hub-west is not ready yet",
        ),
        Reason::WaitingForTurn => managed(
            reason,
            "the pod is ready; it restarts with its new template after IoTHub hub-east is ready",
        ),
        Reason::Unschedulable => managed(
            reason,
            "no node takes pod iothub-hub-west-0: 0/3 nodes are available: 3 Insufficient memory.",
        ),
        Reason::ImageUnavailable => managed(
            reason,
            "image ghcr.io/rehome-dev/rehome:0.1.0 cannot be had (ImagePullBackOff): no such host; correct the operator's --hub-image, or what it needs to pull it",
        ),
        Reason::WorkloadFailing => managed(
            reason,
            "the hub does not start (CrashLoopBackOff): the store cannot be opened",
        ),
        Reason::VolumeFull => managed(
            reason,
            "the hub's volume is full, so it takes no change; expand PersistentVolumeClaim data-iothub-hub-west-0",
        ),
        Reason::PartRefused => managed(
            reason,
            "the API server refuses StatefulSet iothub-hub-west: exceeded quota",
        ),
        Reason::NameTaken => managed(
            reason,
            "Service iothub-hub-west is not the operator's; delete it, or name the IoTHub otherwise",
        ),
        Reason::AddressPending => managed(
            reason,
            "no load balancer has given Service iothub-hub-west an address; if the cluster has none, set managed.service.type to ClusterIP or NodePort",
        ),
        Reason::IdScopeTaken => enrollment(
            reason,
            "ID scope plant-a belongs to Namespace plant-b, which is older: devices that name it do not come here. Give Namespace plant-a another by the annotation rehome.dev/id-scope",
        ),
        Reason::IdScopeInvalid => enrollment(
            reason,
            "\"plant a\" in the annotation rehome.dev/id-scope of Namespace plant-a is no ID scope: it holds a blank; correct it, or remove it to have the namespace's name",
        ),
    };
    vec![one]
}
