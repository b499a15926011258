//! What SDKs are expected to do: `tests/conformance/expected.yaml`, read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, ensure};
use rehome_testing::sdk::{Transport, folder};
use serde::Deserialize;

use super::scenario::{Outcome, Scenario};

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expectation {
    pub(crate) sdks: Vec<Sdk>,
    pub(crate) services: Vec<Service>,
}

/// One device SDK in one version.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Sdk {
    pub(crate) name: String,
    /// For people, in Markdown.
    pub(crate) title: String,
    /// What it sends.
    pub(crate) api_version: String,
    pub(crate) transports: Vec<Transport>,
    /// Towards hubs.
    hub_transports: Vec<Transport>,
    pub(crate) attestations: Vec<Attestation>,
    pub(crate) unsupported: Vec<Unsupported>,
    expected: BTreeMap<Scenario, Vec<Rule>>,
    /// Which rows are wanted: those whose name has this in it.
    #[serde(skip)]
    only: String,
}

/// What an SDK cannot do, whoever it talks to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unsupported {
    pub(crate) what: String,
    /// Devices that there cannot be, where the SDK has each on its own: these transports with these
    /// attestations.
    #[serde(default)]
    transports: Vec<Transport>,
    #[serde(default)]
    attestations: Vec<Attestation>,
    pub(crate) because: String,
}

/// What devices of some transports and attestations do in a scenario.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(default)]
    transports: Vec<Transport>,
    #[serde(default)]
    attestations: Vec<Attestation>,
    pub(crate) outcome: Outcome,
    /// Part of what the SDK says.
    pub(crate) says: Option<String>,
    pub(crate) because: Option<String>,
}

/// One service SDK and what it is used for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) operations: Vec<String>,
    pub(crate) unsupported: Vec<Unsupported>,
}

/// How a device proves who it is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Attestation {
    Key,
    GroupKey,
    X509,
    X509Group,
    Tpm,
}

/// One kind of device: a row of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Variant<'a> {
    pub(crate) sdk: &'a str,
    pub(crate) transport: Transport,
    pub(crate) attestation: Attestation,
}

impl Expectation {
    /// Reads the committed table and checks that it says something about every cell.
    pub(crate) fn read() -> Result<Self> {
        let file = folder().join("expected.yaml");
        let text = std::fs::read_to_string(&file)?;
        let expectation: Self =
            serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
        for sdk in &expectation.sdks {
            sdk.check()
                .with_context(|| format!("{}, {}", file.display(), sdk.name))?;
        }
        Ok(expectation)
    }

    /// Leaves out the devices and services whose name does not have this in it.
    pub(crate) fn keep_only(&mut self, text: &str) -> Result<()> {
        for sdk in &mut self.sdks {
            text.clone_into(&mut sdk.only);
        }
        self.sdks.retain(|sdk| sdk.variants().next().is_some());
        self.services
            .retain(|service| format!("service-{}", service.name).contains(text));
        ensure!(
            !self.sdks.is_empty() || !self.services.is_empty(),
            "neither a device nor a service has {text} in its name; names are such as \
             node-mqtt-key and service-python"
        );
        Ok(())
    }

    pub(crate) fn variants(&self) -> impl Iterator<Item = Variant<'_>> {
        self.sdks.iter().flat_map(Sdk::variants)
    }

    /// The programs that devices run in: of back ends too, which have a device each.
    pub(crate) fn programs(&self) -> BTreeSet<&str> {
        let sdks = self.sdks.iter().map(|sdk| &*sdk.name);
        let services = self.services.iter().map(|service| &*service.name);
        sdks.chain(services).collect()
    }

    pub(crate) fn sdk(&self, name: &str) -> Option<&Sdk> {
        self.sdks.iter().find(|sdk| sdk.name == name)
    }
}

impl Sdk {
    pub(crate) fn variants(&self) -> impl Iterator<Item = Variant<'_>> {
        let all = self.transports.iter().flat_map(move |&transport| {
            self.attestations.iter().map(move |&attestation| Variant {
                sdk: &self.name,
                transport,
                attestation,
            })
        });
        all.filter(|variant| !self.unsupported.iter().any(|one| one.covers(*variant)))
            .filter(|variant| variant.to_string().contains(&self.only))
    }

    /// How a device speaks to hubs: over WebSocket if it registers over it and the SDK can.
    pub(crate) fn at_hub(&self, registers_over: Transport) -> Transport {
        let wanted = match registers_over {
            Transport::Https | Transport::Mqtt | Transport::Amqp => Transport::Mqtt,
            Transport::MqttWs | Transport::AmqpWs => Transport::MqttWs,
        };
        let can = self.hub_transports.contains(&wanted);
        if can { wanted } else { Transport::Mqtt }
    }

    /// What is expected of one device.
    pub(crate) fn rule(&self, variant: Variant<'_>, scenario: Scenario) -> Option<&Rule> {
        let rules = self.expected.get(&scenario)?;
        rules.iter().find(|rule| rule.covers(variant))
    }

    fn check(&self) -> Result<()> {
        for scenario in Scenario::ALL {
            for variant in self.variants() {
                let rule = self.rule(variant, scenario);
                rule.with_context(|| format!("nothing is said about {scenario} for {variant}"))?;
            }
            for rule in &self.expected[&scenario] {
                let used = self.variants().any(|variant| {
                    self.rule(variant, scenario)
                        .is_some_and(|found| std::ptr::eq(found, rule))
                });
                ensure!(
                    used,
                    "{scenario}: a rule that holds for no device: {rule:?}"
                );
                let fails = matches!(rule.outcome, Outcome::Refused | Outcome::GivesUp);
                ensure!(
                    fails == rule.says.is_some(),
                    "{scenario}: `says` is for what the SDK says when it fails: {rule:?}"
                );
            }
        }
        Ok(())
    }
}

impl Service {
    /// The registration id of a device of the same language, which answers methods.
    pub(crate) fn answering(&self) -> String {
        format!("answers-{}", self.name)
    }
}

impl Unsupported {
    fn covers(&self, variant: Variant<'_>) -> bool {
        self.transports.contains(&variant.transport)
            && self.attestations.contains(&variant.attestation)
    }
}

impl Rule {
    fn covers(&self, variant: Variant<'_>) -> bool {
        let names = |listed: bool, is_empty: bool| is_empty || listed;
        names(
            self.transports.contains(&variant.transport),
            self.transports.is_empty(),
        ) && names(
            self.attestations.contains(&variant.attestation),
            self.attestations.is_empty(),
        )
    }
}

impl Attestation {
    /// Whether many devices share its Enrollment.
    pub(crate) fn is_group(self) -> bool {
        match self {
            Self::Key | Self::X509 | Self::Tpm => false,
            Self::GroupKey | Self::X509Group => true,
        }
    }
}

impl fmt::Display for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Key => "key",
            Self::GroupKey => "group-key",
            Self::X509 => "x509",
            Self::X509Group => "x509-group",
            Self::Tpm => "tpm",
        })
    }
}

impl fmt::Display for Variant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!(
            "{}-{}-{}",
            self.sdk, self.transport, self.attestation
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rules: &str) -> Result<Sdk> {
        let mut every = String::new();
        for scenario in Scenario::ALL {
            let name = format!("{scenario:?}").to_lowercase();
            let name = name.replace("wrongc", "wrong-c");
            let is_asked = scenario == Scenario::Throttled;
            let rules = if is_asked { rules } else { "[{outcome: ok}]" };
            every = format!("{every}\n  {name}: {rules}");
        }
        let text = format!(
            "name: x\ntitle: x\napiVersion: x\ntransports: [https, mqtt]\nhubTransports: [mqtt]\n\
             attestations: [key]\n\
             unsupported: []\nexpected:{every}\n"
        );
        let sdk: Sdk = serde_saphyr::from_str(&text)?;
        sdk.check()?;
        Ok(sdk)
    }

    #[test]
    fn the_committed_table_speaks_of_every_cell() {
        Expectation::read().unwrap();
    }

    #[test]
    fn a_part_of_the_table_is_what_has_the_text_in_its_name() {
        let part = |text: &str| {
            let mut expectation = Expectation::read()?;
            expectation.keep_only(text)?;
            let devices: Vec<_> = expectation.variants().map(|one| one.to_string()).collect();
            anyhow::Ok((devices, expectation.services.len()))
        };
        let (devices, services) = part("python-mqtt-ws-key").unwrap();
        assert_eq!(
            (&*devices, services),
            (&["python-mqtt-ws-key".to_owned()][..], 0)
        );
        assert_eq!(part("service-node").unwrap(), (vec![], 1));
        let all = Expectation::read().unwrap();
        assert_eq!(part("").unwrap().0.len(), all.variants().count());
        assert!(part("cobol").is_err());
    }

    #[test]
    fn the_first_rule_that_covers_a_device_holds() {
        let sdk = table("[{transports: [https], outcome: gives-up, says: no}, {outcome: ok}]");
        let sdk = sdk.unwrap();
        let outcomes: Vec<_> = sdk
            .variants()
            .map(|variant| sdk.rule(variant, Scenario::Throttled).unwrap().outcome)
            .collect();
        assert_eq!(outcomes, [Outcome::GivesUp, Outcome::Ok]);
    }

    #[test]
    fn a_cell_without_a_rule_and_a_rule_without_a_cell_are_errors() {
        let holes = table("[{transports: [https], outcome: ok}]");
        assert!(format!("{:#}", holes.unwrap_err()).contains("nothing is said about throttled"));
        let idle = table("[{outcome: ok}, {transports: [https], outcome: ok}]");
        assert!(format!("{:#}", idle.unwrap_err()).contains("holds for no device"));
        assert!(table("[{outcome: refused}]").is_err());
    }
}
