//! Load by devices themselves: each on a connection of its own, kept open or made anew each time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rehome_testing::device::{Applicant, Conversation, Line, Protocol, Registrar, Reply, Trust};
use tokio::task::JoinSet;

/// Devices that connect at the same time: fewer than a client may have handshakes under way.
const AT_ONCE: usize = 32;

/// One request of one device, and what it presents in the handshake.
pub(crate) struct Visit {
    pub(crate) trust: Trust,
    pub(crate) request: Vec<u8>,
}

/// Has every device keep its connection and register again and again for that long; gives the
/// answers per second.
pub(crate) async fn converse(
    at: &Registrar,
    fleet: &[Applicant],
    protocol: Protocol,
    time: Duration,
) -> Result<f64> {
    let mut open = Vec::new();
    for device in fleet {
        open.push(at.converse(device.clone(), protocol).await?);
    }
    let begin = Instant::now();
    let mut talking = JoinSet::new();
    for conversation in open {
        talking.spawn(talk(conversation, begin + time));
    }
    rate(talking, begin).await
}

async fn talk(mut conversation: Conversation, end: Instant) -> Result<usize> {
    let mut answers = 0;
    while Instant::now() < end {
        let told = conversation.register().await?;
        ensure!(told.status == "assigned", "it was told {told:?}");
        answers += 1;
    }
    Ok(answers)
}

/// Has devices come in turn for that long, each to connect, ask and leave; gives the answers per
/// second.
pub(crate) async fn visit(
    (host, address): (&str, SocketAddr),
    visits: &Arc<Vec<Visit>>,
    is_fine: fn(&Reply) -> bool,
    time: Duration,
) -> Result<f64> {
    let begin = Instant::now();
    let mut visiting = JoinSet::new();
    for first in 0..AT_ONCE {
        let (host, visits) = (host.to_owned(), visits.clone());
        visiting.spawn(async move {
            let mut answers = 0;
            for visit in visits.iter().cycle().skip(first * visits.len() / AT_ONCE) {
                if begin.elapsed() >= time {
                    break;
                }
                let mut line = Line::connect(&host, address, &visit.trust).await?;
                let reply = line.ask(&visit.request).await?;
                let body = String::from_utf8_lossy(&reply.body);
                ensure!(
                    is_fine(&reply),
                    "a visitor was answered {}: {body}",
                    reply.code
                );
                answers += 1;
            }
            Ok(answers)
        });
    }
    rate(visiting, begin).await
}

async fn rate(mut work: JoinSet<Result<usize>>, begin: Instant) -> Result<f64> {
    let mut answers = 0;
    while let Some(done) = work.join_next().await {
        answers += done??;
    }
    Ok(f64::from(u32::try_from(answers)?) / begin.elapsed().as_secs_f64())
}
