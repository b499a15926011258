//! The gateway under attack, and the same gateway beside a burner.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use rehome_testing::attack::{ATTACKS, Attack, Prey, Signs};
use rehome_testing::fleet::{Group, Tenant};
use rehome_testing::installation::Flags;
use rehome_testing::vitals::rss;
use rehome_testing::{Cluster, Installation, Process, scratch};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::Size;
use crate::burner::Profile;
use crate::honest::{self, Times};
use crate::table::{HEAD, Row};

const WEST: &str = "hub-west";
const HONEST: usize = 200;
/// What the gateway may grow by in an attack, in KiB, and for each connection of the attackers.
const GROWTH: u64 = 64 * 1024;
const EACH: u64 = 40;
/// Longest time for a process of ours to do what it was started for.
const PATIENCE: Duration = Duration::from_mins(5);

/// How often a brief attack and its burner take turns: of some hundred devices the 99th of 100 is one
/// or two, and those are a matter of luck.
const ROUNDS: u64 = 3;

/// What one attack and its burner did.
struct Round {
    attacked: Times,
    burnt: Times,
    /// KiB of the gateway.
    largest: u64,
    share: u32,
}

impl Round {
    fn add(&mut self, other: Self) {
        self.attacked.add(other.attacked);
        self.burnt.add(other.burnt);
        self.largest = self.largest.max(other.largest);
        self.share = self.share.max(other.share);
    }
}

struct Siege {
    cluster: Cluster,
    installation: Installation,
    prey: Prey,
    requests: Arc<Vec<Vec<u8>>>,
    /// Its namespace lives as long as it does.
    _tenant: Tenant,
}

/// Measures, prints the table, and fails if something is not as it must be.
pub(crate) async fn run(rehome: &Path, size: &Size) -> Result<()> {
    eprintln!("starting a control plane, the operator and a hub; {HONEST} devices register");
    let siege = Siege::start(rehome).await?;
    println!("{HEAD}");
    let mut broken = 0;
    for attack in ATTACKS
        .iter()
        .filter(|attack| attack.name.contains(&size.only))
    {
        let row = siege.suffer(attack, size.seconds).await?;
        println!("{row}");
        broken += usize::from(!row.broken().is_empty());
    }
    if size.only.is_empty() {
        let each = siege.idle(size.idle).await?;
        println!(
            "{} idle connections: {each} KiB each, {EACH} allowed",
            size.idle
        );
        broken += usize::from(each > EACH);
    }
    let poisoned = Signs::look(&siege.installation).await?;
    ensure!(poisoned.poisoned().is_none(), "{:?}", poisoned.poisoned());
    siege.installation.stop().await?;
    ensure!(broken == 0, "{broken} bounds are broken");
    Ok(())
}

impl Siege {
    async fn start(rehome: &Path) -> Result<Self> {
        let cluster = Cluster::private().await?;
        let flags = Flags {
            // Whoever comes back is not taken for one that its hub refuses: that would write.
            gateway: ["--resend-window-seconds=0", "--refused-window-seconds=0"]
                .map(str::to_owned)
                .into(),
            ..Flags::default()
        };
        let installation = Installation::start_with(&cluster, rehome, &[WEST], &flags).await?;
        let tenant = Tenant::start(&cluster, &installation, "siege").await?;
        let [group, leaked] =
            ["line", "leaked"].map(|name| Group::new(name, Some("MigrateData"), &[WEST]));
        let (group, leaked) = (group?, leaked?);
        tenant.enroll(&group, &installation).await?;
        tenant.enroll(&leaked, &installation).await?;
        let mut requests = Vec::new();
        for number in 0..HONEST {
            let device = tenant.device(&group, number);
            tenant.register(&installation.registrar, &device).await?;
            requests.push(device.register_request()?);
        }
        let insider = tenant.device(&group, "insider");
        tenant.register(&installation.registrar, &insider).await?;
        close(&installation, &tenant, &leaked).await?;
        Ok(Self {
            prey: Prey::new(&installation.registrar, &tenant, &leaked, insider),
            cluster,
            installation,
            requests: Arc::new(requests),
            _tenant: tenant,
        })
    }

    async fn suffer(&self, attack: &Attack, seconds: u64) -> Result<Row> {
        let incident = attack.incident;
        let seconds = seconds + attack.shows_after.as_secs();
        // What takes long has samples enough.
        let rounds = if attack.shows_after.is_zero() {
            ROUNDS
        } else {
            1
        };
        let before = Signs::look(&self.installation).await?;
        let mark = self.cluster.audit().context("no audit log")?.mark()?;
        let mut suffered = self.round(attack, seconds).await?;
        for _ in 1..rounds {
            suffered.add(self.round(attack, seconds).await?);
        }
        let after = Signs::look(&self.installation).await?;
        let requests = self.cluster.audit().context("no audit log")?.since(mark)?;
        let writes = requests.writes().to_group("rehome.dev");
        let writes = writes.only(|write| write.resource == "deviceregistrations");
        Ok(Row {
            name: attack.name,
            incident,
            incidents: after.incidents(incident) - before.incidents(incident),
            lines: after.lines(incident) - before.lines(incident),
            most_lines: usize::try_from(rounds * (seconds / 10 + 2))?,
            writes: writes.0.len(),
            grown: suffered.largest.saturating_sub(before.rss),
            may_grow: GROWTH + EACH * u64::try_from(attack.earnest)?,
            share: suffered.share,
            attacked: suffered.attacked.p99(),
            burnt: suffered.burnt.p99(),
        })
    }

    /// Once under attack, and once beside a burner.
    async fn round(&self, attack: &Attack, seconds: u64) -> Result<Round> {
        let time = Duration::from_secs(seconds);
        let arguments = [
            attack.name.to_owned(),
            attack.earnest.to_string(),
            seconds.to_string(),
        ];
        let prey = self.prey.to_json().to_string();
        let mut attackers = spawn("strike", &arguments, &prey)?;
        let largest = self.watch(time);
        let attacked = honest::come(&self.installation.registrar, &self.requests, time);
        let (largest, attacked) = tokio::join!(largest, attacked);
        let ended = attackers.wait_for_line("cpu ", PATIENCE).await?;
        let profile: Profile = ended.trim_start_matches("cpu ").parse()?;
        attackers.wait(PATIENCE).await?;
        let mut burner = spawn("burn", &[], &profile.to_string())?;
        let burnt = honest::come(&self.installation.registrar, &self.requests, time).await?;
        burner.wait(PATIENCE).await?;
        Ok(Round {
            attacked: attacked?,
            burnt,
            largest: largest?,
            share: profile.share(),
        })
    }

    /// The most memory that the gateway has in that time.
    async fn watch(&self, time: Duration) -> Result<u64> {
        let (end, mut largest) = (Instant::now() + time, 0);
        while Instant::now() < end {
            largest = largest.max(rss(self.installation.gateway.pid())?);
            sleep(Duration::from_millis(100)).await;
        }
        Ok(largest)
    }

    /// KiB for each of so many connections that nobody uses.
    async fn idle(&self, count: usize) -> Result<u64> {
        let before = rss(self.installation.gateway.pid())?;
        let prey = self.prey.to_json().to_string();
        let mut holder = spawn("hold", &[count.to_string()], &prey)?;
        holder.wait_for_line("held ", PATIENCE).await?;
        let after = rss(self.installation.gateway.pid())?;
        holder.tell("enough")?;
        holder.wait(PATIENCE).await?;
        Ok(after.saturating_sub(before) / u64::try_from(count)?)
    }
}

/// The group takes no more devices than it has, and the gateway knows.
async fn close(installation: &Installation, tenant: &Tenant, group: &Group) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "maxRegistrations": 1 } }));
    let enrollments = tenant.objects("Enrollment");
    enrollments
        .patch(&group.name, &PatchParams::default(), &patch)
        .await?;
    let mut line = installation.registrar.line().await?;
    for number in 0..1000 {
        let device = tenant.device(group, format!("late-{number}"));
        if line.ask(&device.register_request()?).await?.code == 403 {
            return Ok(());
        }
    }
    anyhow::bail!("maxRegistrations is not taken up")
}

/// A process of this program that does a part, which that line tells more of.
fn spawn(command: &str, arguments: &[String], line: &str) -> Result<Process> {
    let log = scratch("siege")?.join(format!("{command}.log"));
    let arguments = [&[command.to_owned()], arguments].concat();
    let program = std::env::current_exe()?;
    let mut process = Process::spawn_listening(command, program, arguments, log)?;
    process.tell(line)?;
    Ok(process)
}
