//! The rounds: in each, every loop of the product right after the raw loop that it is compared with.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rehome_testing::device::{Applicant, Protocol, Reply, Trust};
use rehome_testing::fleet::Group;

use crate::Size;
use crate::arena::{Arena, EAST, WEST};
use crate::figures::{Figures, LINES};
use crate::load::Load;
use crate::raw::Raw;
use crate::talks::{self, Visit};

/// Measures, and prints the table.
pub(crate) async fn run(rehome: &Path, size: Size) -> Result<()> {
    eprintln!("starting a control plane, the operator and two hubs");
    let arena = Arena::start(rehome).await?;
    let group = Group::new("warm-up", Some("MigrateData"), &[WEST])?;
    arena.tenant.enroll(&group, &arena.installation).await?;
    let like = arena.registration("warm-up-pioneer").await?;
    let raw = Raw::prepare(&arena.cluster, &arena.tenant, &like).await?;
    let certified = arena.certified(size.devices).await?;
    let mut figures = Figures::default();
    for number in 1..=size.rounds {
        eprintln!("round {number} of {}", size.rounds);
        figures
            .0
            .push(round(&arena, &raw, &certified, size, number).await?);
    }
    let Size {
        devices,
        connections,
        ..
    } = size;
    println!(
        "{devices} devices over {connections} kept-alive connections; one gateway, one controller"
    );
    print!("{figures}");
    arena.installation.stop().await
}

async fn round(
    arena: &Arena,
    raw: &Raw,
    certified: &[Arc<Vec<Visit>>; 2],
    size: Size,
    number: usize,
) -> Result<[f64; LINES.len()]> {
    let Size {
        devices,
        connections,
        ..
    } = size;
    let time = Duration::from_secs(size.seconds);
    let group = Group::new(&format!("round{number}"), Some("MigrateData"), &[WEST])?;
    arena.tenant.enroll(&group, &arena.installation).await?;
    let fleet: Vec<_> = (0..devices)
        .map(|number| arena.tenant.device(&group, number))
        .collect();
    let register = requests(&fleet)?;
    let registrar = arena.registrar();
    let (host, trust) = (&registrar.host, &registrar.trust);
    let mut load = Load::connect(connections, host, registrar.https, trust).await?;
    let mut echo = Load::connect(connections, "127.0.0.1", arena.echo, &arena.echo_trust).await?;

    let raw_first = raw.registrations(&group.name, devices).await?;
    let first = settle(arena, &mut load, &group, WEST, &register).await?;
    let echoed = echo.repeat(&register, is_echo, time).await?;
    let unchanged = load.repeat(&register, is_assigned, time).await?;
    let operations = operations(arena, &register, &fleet).await?;
    let polls = load.repeat(&operations, is_assigned, time).await?;
    let talkers = &fleet[..connections.min(devices)];
    let mqtt = talks::converse(registrar, talkers, Protocol::Mqtt, time).await?;
    let amqp = talks::converse(registrar, talkers, Protocol::Amqp, time).await?;
    let [handshakes, keys, mutual, certificates] =
        visits(arena, certified, &register, time).await?;
    let raw_moves = raw.moves(&group.name, devices).await?;
    arena.retarget(&group).await?;
    let moves = settle(arena, &mut load, &group, EAST, &register).await?;
    Ok([
        raw_first,
        first,
        raw_moves,
        moves,
        echoed,
        unchanged,
        polls,
        mqtt,
        amqp,
        handshakes,
        keys,
        mutual,
        certificates,
    ])
}

/// Devices that connect anew each time: with keys to the echo and to the gateway, and with
/// certificates likewise.
async fn visits(
    arena: &Arena,
    [certified, echoed]: &[Arc<Vec<Visit>>; 2],
    register: &[Vec<u8>],
    time: Duration,
) -> Result<[f64; 4]> {
    let registrar = arena.registrar();
    let (gateway, echo) = (
        (registrar.host.as_str(), registrar.https),
        ("127.0.0.1", arena.echo),
    );
    let by_key = |trust: &Trust| {
        let visit = |request: &Vec<u8>| Visit {
            trust: trust.clone(),
            request: request.clone(),
        };
        Arc::new(register.iter().map(visit).collect::<Vec<_>>())
    };
    Ok([
        talks::visit(echo, &by_key(&arena.echo_trust), is_echo, time).await?,
        talks::visit(gateway, &by_key(&registrar.trust), is_assigned, time).await?,
        talks::visit(echo, echoed, is_echo, time).await?,
        talks::visit(gateway, certified, is_assigned, time).await?,
    ])
}

/// Has all devices register; how many settle at the hub, per second, until the last one has.
pub(crate) async fn settle(
    arena: &Arena,
    load: &mut Load,
    group: &Group,
    hub: &str,
    register: &Arc<Vec<Vec<u8>>>,
) -> Result<f64> {
    let finish = arena.finish(group, hub, register.len())?;
    let begin = Instant::now();
    load.once(register, is_accepted).await?;
    let took = finish.time().await?.duration_since(begin);
    Ok(f64::from(u32::try_from(register.len())?) / took.as_secs_f64())
}

/// The requests by which the devices poll their last operation.
async fn operations(
    arena: &Arena,
    register: &[Vec<u8>],
    fleet: &[Applicant],
) -> Result<Arc<Vec<Vec<u8>>>> {
    let mut line = arena.registrar().line().await?;
    let mut requests = Vec::new();
    for (request, device) in register.iter().zip(fleet) {
        let answer = line.ask(request).await?.json()?;
        let operation = answer["operationId"].as_str().context("no operation id")?;
        requests.push(device.poll_request(operation)?);
    }
    Ok(Arc::new(requests))
}

pub(crate) fn requests(fleet: &[Applicant]) -> Result<Arc<Vec<Vec<u8>>>> {
    let requests = fleet.iter().map(Applicant::register_request);
    Ok(Arc::new(requests.collect::<Result<_>>()?))
}

fn is_accepted(reply: &Reply) -> bool {
    reply.code == 200 || reply.code == 202
}

fn is_assigned(reply: &Reply) -> bool {
    let assigned = br#""status":"assigned""#;
    is_accepted(reply)
        && reply
            .body
            .windows(assigned.len())
            .any(|part| part == assigned)
}

fn is_echo(reply: &Reply) -> bool {
    reply.code == 200 && !reply.body.is_empty()
}
