//! Every attack, briefly and by few attackers, on a real gateway: each is called by its name in the
//! metrics and in few lines of the log, none makes the API server write, and nothing that an attacker
//! says is shown anywhere. What attacks cost honest devices is measured by `make attack`.

#![cfg(test)]

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use kube::api::{Patch, PatchParams};
use rehome_testing::attack::{ATTACKS, Attack, Prey, Signs, hold};
use rehome_testing::device::Applicant;
use rehome_testing::fleet::{Group, Tenant};
use rehome_testing::installation::Flags;
use rehome_testing::{Cluster, Installation, Mark, expect_ok, show};
use serde_json::json;
use tokio::time::Instant;

const WEST: &str = "hub-west";
/// Longest time for an attack to be seen.
const SEEN: Duration = Duration::from_mins(1);
const ATTACKERS: usize = 8;
/// Between two lines of the log about one kind of incident.
const QUIET: Duration = Duration::from_secs(10);
/// Connections that are held open, and what each may cost in KiB, with room for what a process of
/// an unoptimized build takes for other reasons.
const HELD: usize = 500;
const EACH: u64 = 40;

struct Ground {
    cluster: Cluster,
    installation: Installation,
    tenant: Tenant,
    prey: Prey,
    honest: Applicant,
    begin: Instant,
}

impl Ground {
    async fn start() -> Self {
        let cluster = Cluster::private().await.unwrap();
        let flags = Flags {
            gateway: [
                "--resend-window-seconds=0",
                "--refused-window-seconds=0",
                // So that few attackers reach them.
                "--max-failures-per-client=50",
                "--max-new-connections-per-client=200",
            ]
            .map(str::to_owned)
            .into(),
            ..Flags::default()
        };
        let rehome = Path::new(env!("CARGO_BIN_EXE_rehome"));
        let installation = Installation::start_with(&cluster, rehome, &[WEST], &flags);
        let installation = installation.await.unwrap();
        let tenant = Tenant::start(&cluster, &installation, "attack")
            .await
            .unwrap();
        let group = Group::new("line", Some("MigrateData"), &[WEST]).unwrap();
        tenant.enroll(&group, &installation).await.unwrap();
        let leaked = Group::new("leaked", Some("MigrateData"), &[WEST]).unwrap();
        tenant.enroll(&leaked, &installation).await.unwrap();
        let [honest, insider] = ["honest", "insider"].map(|name| tenant.device(&group, name));
        for device in [&honest, &insider] {
            let told = tenant.register(&installation.registrar, device).await;
            assert_eq!(told.unwrap().status, "assigned");
        }
        let prey = Prey::new(&installation.registrar, &tenant, &leaked, insider);
        let ground = Self {
            cluster,
            installation,
            tenant,
            prey,
            honest,
            begin: Instant::now(),
        };
        ground.close(&leaked).await;
        ground
    }

    /// The group takes no more devices than it has, and the gateway knows.
    async fn close(&self, group: &Group) {
        let patch = Patch::Merge(json!({ "spec": { "maxRegistrations": 1 } }));
        let enrollments = self.tenant.objects("Enrollment");
        let params = PatchParams::default();
        enrollments
            .patch(&group.name, &params, &patch)
            .await
            .unwrap();
        let mut line = self.installation.registrar.line().await.unwrap();
        let mut number = 0;
        expect_ok("the group to be full", SEEN, async || {
            number += 1;
            let device = self.tenant.device(group, format!("late-{number}"));
            let reply = line.ask(&device.register_request().unwrap()).await.unwrap();
            if reply.code == 403 {
                Ok(())
            } else {
                Err(reply)
            }
        })
        .await;
    }

    async fn look(&self) -> Signs {
        Signs::look(&self.installation).await.unwrap()
    }

    fn mark(&self) -> Mark {
        self.cluster.audit().unwrap().mark().unwrap()
    }

    /// Strikes until it shows.
    async fn suffer(&self, attack: &Attack) {
        let incident = attack.incident;
        let before = self.look().await.incidents(incident);
        let at_least = attack.shows_after + Duration::from_secs(1);
        expect_ok(attack.name, SEEN, async || {
            attack.strike(&self.prey, ATTACKERS, at_least).await;
            let signs = self.look().await;
            let more = signs.incidents(incident) - before;
            if more == 0 { Err(incident) } else { Ok(more) }
        })
        .await;
    }

    fn no_writes(&self, since: Mark) {
        let requests = self.cluster.audit().unwrap().since(since).unwrap();
        let writes = requests.writes().to_group("rehome.dev");
        let of_devices = writes.only(|write| write.resource == "deviceregistrations");
        assert!(of_devices.is_empty(), "{of_devices}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_are_named_and_cost_no_write() {
    let ground = Ground::start().await;
    let mark = ground.mark();
    let brief = |attack: &&Attack| attack.shows_after < Duration::from_mins(1);
    let (slow, quick): (Vec<_>, Vec<_>) = ATTACKS
        .iter()
        .filter(brief)
        .partition(|attack| attack.shows_after > Duration::ZERO);
    // What takes time takes it together; all of these are slow handshakes or slow requests.
    let suffered = slow.iter().map(|attack| ground.suffer(attack));
    join_all(suffered).await;
    for attack in quick {
        ground.suffer(attack).await;
    }
    ground.no_writes(mark);
    let signs = ground.look().await;
    assert_eq!(signs.poisoned(), None);
    let lines_at_most = ground.begin.elapsed().as_secs() / QUIET.as_secs() + 2;
    for incident in ATTACKS.iter().map(|attack| attack.incident) {
        let (count, lines) = (signs.incidents(incident), signs.lines(incident));
        show(format!(
            "{incident:<24} {count:>7} incidents, {lines} lines"
        ));
        assert!(lines >= 1, "{incident} is not in the log");
        assert!(lines as u64 <= lines_at_most, "{incident}: {lines} lines");
    }
    honest_devices_are_served(&ground).await;
    idle_connections_are_cheap(&ground).await;
    ground.no_writes(mark);
    ground.installation.stop().await.unwrap();
}

async fn honest_devices_are_served(ground: &Ground) {
    let registrar = &ground.installation.registrar;
    let told = ground.tenant.register(registrar, &ground.honest).await;
    assert_eq!(told.unwrap().status, "assigned");
}

async fn idle_connections_are_cheap(ground: &Ground) {
    // What the first ones take is taken once.
    drop(hold(&ground.prey, 50).await.unwrap());
    let before = ground.look().await.rss;
    // Fewer than one client may open.
    let held = hold(&ground.prey, HELD / 4).await.unwrap();
    let each = ground.look().await.rss.saturating_sub(before) / held.len() as u64;
    show(format!("{} idle connections: {each} KiB each", held.len()));
    assert!(each <= 2 * EACH, "{each} KiB for each idle connection");
}
