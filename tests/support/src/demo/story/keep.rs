//! What a person needs to go on alone.

use super::Stage;
use crate::Programs;
use crate::python;

impl Stage {
    /// Prints how to talk to everything.
    pub(crate) fn explain(&self, programs: &Programs) {
        let registrar = &self.installation.registrar;
        let scope = self.namespace.name();
        let directory = self.directory.display();
        let group_key = self.group_key.to_base64();
        println!(
            "
Everything stays on until Ctrl-C here (or: kill {pid}).

devices register at   {gateway}   MQTT {mqtt}, HTTPS {https}
ID scope              {scope}
group key of line-3   {group_key}
CA to trust           {directory}/ca.crt",
            pid = std::process::id(),
            gateway = registrar.host,
            mqtt = registrar.mqtt.port(),
            https = registrar.https.port(),
        );
        for hub in &self.installation.hubs {
            println!(
                "{name:<22}{host}   MQTT {mqtt}, service API https://{https}\n{:22}{connection}",
                "",
                name = hub.name,
                host = hub.host(),
                mqtt = hub.place.mqtt().port(),
                https = hub.place.https(),
                connection = hub.connection_string(),
            );
        }
        println!(
            "logs                  {}

kubectl:
  export KUBECONFIG={}
  {} kubectl -n {scope} get devreg

the key of another device, here press-9:
  python3 -c 'import sys,hmac,base64 as b; print(b.b64encode(hmac.digest(b.b64decode(sys.argv[1]), sys.argv[2].encode(), \"sha256\")).decode())' '{group_key}' press-9

a device of your own (type help; then register, connect, twin, report {{\"a\":1}}):
  {} {} --host {} --id-scope {scope} --registration-id press-9 --ca-file {directory}/ca.crt --key …",
            self.installation.directory.display(),
            self.kubectl.kubeconfig.display(),
            self.kubectl.program.display(),
            programs.python.display(),
            python::directory().join("device.py").display(),
            registrar.host,
        );
    }
}
