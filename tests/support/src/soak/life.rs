//! The life of one device: it registers, lives at the hub that it is told, and registers again when
//! it likes to and when its hub sends it away, as an application with an SDK does.
//!
//! ```text
//! register ──▶ connect, read the twin, report ──▶ stay ──▶ one of: report and send telemetry,
//!    ▲                  ▲                          ▲ │      register again, connect again
//!    │                  └── told another hub ──────┼─┤
//!    └── the hub ended the connection, or refused ─┴─┘
//! ```
//!
//! It reports a number that it counts up. Whatever hub it finds itself at must know the last one that
//! any hub has acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use rehome_testing::Dice;
use tokio::time::sleep;

use super::body::{Body, Failure, Home, Kind, count_of};
use super::faults::Fault;
use super::run::Run;
use super::tally::Outcome;

/// How long an application waits before it registers again, at most twice as long.
const BEFORE_AGAIN: Duration = Duration::from_secs(1);

/// One device and what it does next.
pub(crate) struct Life<B> {
    body: B,
    dice: Dice,
    run: Arc<Run>,
    account: Account,
}

/// What a device knows of itself.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) registration_id: String,
    pub(crate) kind: Kind,
    /// The last count that a hub acknowledged.
    pub(crate) acknowledged: u64,
    /// Whether it has reported the next one and does not know whether a hub has it.
    pub(crate) is_unsure: bool,
    /// When it was last served, by whomever.
    pub(crate) served: Option<Instant>,
}

/// What a device does of its own will.
enum Deed {
    Report,
    Register,
    /// Ends its connection and connects again.
    Connect,
}

/// How a stay at a hub ended.
enum End {
    /// The run is over.
    Over,
    /// It registered again and was told another hub.
    Moved(Home),
    /// The hub has ended the connection, or does not take it.
    SentAway(Error),
}

impl<B: Body> Life<B> {
    pub(crate) fn new(body: B, registration_id: &str, dice: Dice, run: Arc<Run>) -> Self {
        let account = Account {
            registration_id: registration_id.to_owned(),
            kind: body.kind(),
            acknowledged: 0,
            is_unsure: false,
            served: None,
        };
        Self {
            body,
            dice,
            run,
            account,
        }
    }

    /// Lives until the run is over.
    pub(crate) async fn lead(mut self) -> Account {
        if let Some(mut home) = self.register(None).await {
            loop {
                home = match self.dwell(&home).await {
                    End::Over => break,
                    End::Moved(next) => next,
                    End::SentAway(_) if self.run.is_over() => break,
                    End::SentAway(why) => match self.come_back(&home, &why).await {
                        Some(next) => next,
                        None => break,
                    },
                };
            }
        }
        self.body.close().await;
        self.account
    }

    /// Stays at a hub as long as that is its home.
    async fn dwell(&mut self, home: &Home) -> End {
        if let Err(why) = self.settle(home).await {
            return End::SentAway(why);
        }
        self.run.has_arrived(&self.account.registration_id);
        loop {
            let pause = self.run.pause.mul_f64(0.5 + self.share());
            let stay = self.body.stay(pause);
            tokio::select! {
                () = self.run.over() => return End::Over,
                stays = stay => if !stays {
                    return End::SentAway(anyhow::anyhow!("the hub ended the connection"));
                },
            }
            let deed = self.choose();
            let done = match deed {
                Deed::Report => self.report().await,
                Deed::Connect => {
                    self.run.tally.has_connected_again();
                    self.body.close().await;
                    self.settle(home).await
                }
                Deed::Register => match self.register(Some(home)).await {
                    None => return End::Over,
                    Some(next) if next.hub == home.hub => Ok(()),
                    Some(next) => {
                        if !self.body.is_cut_off().await {
                            let old = &home.hub;
                            self.fault(
                                Fault::NotCutOff,
                                &format!("{old} after it was told {next:?}"),
                            );
                        }
                        return End::Moved(next);
                    }
                },
            };
            if let Err(why) = done {
                return End::SentAway(why);
            }
        }
    }

    /// After its hub has sent it away: that is fine if it is told another home.
    async fn come_back(&mut self, home: &Home, why: &Error) -> Option<Home> {
        self.body.close().await;
        sleep(BEFORE_AGAIN.mul_f64(1.0 + self.share())).await;
        let next = self.register(Some(home)).await?;
        self.run.tally.was_sent_away();
        if next.hub == home.hub {
            self.fault(Fault::SentAway, &format!("{}: {why:#}", home.hub));
        }
        Some(next)
    }

    /// Connects, and finds there what it left.
    async fn settle(&mut self, home: &Home) -> Result<()> {
        self.body.connect(home).await?;
        let seen = count_of(&self.body.reported().await?)?;
        let account = &mut self.account;
        let last = account.acknowledged;
        account.acknowledged = seen;
        let is_right = seen == last || account.is_unsure && seen == last + 1;
        account.is_unsure = false;
        if !is_right {
            let hub = &home.hub;
            let what = format!("{hub} shows the count {seen} where {last} was acknowledged");
            self.fault(Fault::LostWrite, &what);
        }
        self.report().await
    }

    async fn report(&mut self) -> Result<()> {
        let next = self.account.acknowledged + 1;
        self.account.is_unsure = true;
        self.body.report(next).await?;
        self.account.acknowledged = next;
        self.account.is_unsure = false;
        self.account.served = Some(Instant::now());
        self.run.tally.has_reported();
        self.body.send().await
    }

    /// Registers until it is told a home; `None` if the run is over before.
    async fn register(&mut self, before: Option<&Home>) -> Option<Home> {
        loop {
            let run = self.run.clone();
            let gateway = &run.gateways[usize::from(self.dice.roll(2) == 1)];
            let begin = Instant::now();
            match self.body.register(&gateway.registrar).await {
                Ok(home) => {
                    let outcome = Outcome::of(before, &home);
                    let kind = self.account.kind;
                    run.tally.has_registered(kind, outcome, begin.elapsed());
                    self.account.served = Some(Instant::now());
                    return Some(home);
                }
                Err(Failure::Broken(_)) if gateway.was_away(begin) => {
                    run.tally.was_interrupted(self.account.kind);
                }
                Err(failure) => {
                    let fault = match failure {
                        Failure::Refused(_) => Fault::Refused,
                        Failure::Broken(_) => Fault::Broken,
                    };
                    self.fault(fault, &format!("{}: {failure}", gateway.registrar.host));
                }
            }
            tokio::select! {
                () = run.over() => return None,
                () = sleep(BEFORE_AGAIN.mul_f64(1.0 + self.share())) => {}
            }
        }
    }

    fn choose(&mut self) -> Deed {
        match self.dice.roll(10) {
            0..6 => Deed::Report,
            6..9 => Deed::Register,
            _ => Deed::Connect,
        }
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.dice.roll(1000)).unwrap_or_default()) / 1000.0
    }

    fn fault(&self, fault: Fault, what: &str) {
        let Account {
            registration_id,
            kind,
            ..
        } = &self.account;
        let faults = &self.run.faults;
        faults.add(fault, &format!("{registration_id} ({kind}): {what}"));
    }
}
