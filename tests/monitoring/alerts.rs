//! The alerts, by Prometheus' own tool.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use rehome_testing::scratch;
use serde_json::Value;

use crate::shipped;

fn read(path: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_alert_fires_on_what_it_is_for_and_is_silent_otherwise() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring/alerts_test.yaml");
    let folder = scratch("alerts").unwrap();
    std::fs::copy(shipped("alerts.yaml"), folder.join("alerts.yaml")).unwrap();
    std::fs::copy(&cases, folder.join("alerts_test.yaml")).unwrap();
    let output = Command::new("promtool")
        .args(["test", "rules", "alerts_test.yaml"])
        .current_dir(&folder)
        .output()
        .expect("promtool, which tests/prepare installs");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );

    let cases = read(&cases);
    let silent = cases["tests"][0]["alert_rule_test"].as_array().unwrap();
    let silent: BTreeSet<_> = silent
        .iter()
        .map(|it| it["alertname"].as_str().unwrap())
        .collect();
    let firing = cases["tests"][1]["promql_expr_test"][0]["exp_samples"].to_string();
    for alert in alerts().as_array().unwrap() {
        let name = alert["alert"].as_str().unwrap();
        assert!(
            silent.contains(name),
            "{name} is not shown to be silent when all is well"
        );
        assert!(firing.contains(name), "{name} is not shown to fire");
        assert!(
            alert["annotations"]["description"].is_string(),
            "{name} does not say what to do"
        );
    }
}

fn alerts() -> Value {
    read(&shipped("alerts.yaml"))["groups"][0]["rules"].clone()
}
