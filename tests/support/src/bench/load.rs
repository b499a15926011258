//! Load: many kept-alive connections, each with one request on its way at any time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rehome_testing::device::{Line, Reply, Trust};
use tokio::task::JoinSet;

/// Open connections to one server.
pub(crate) struct Load {
    lines: Vec<Line>,
}

impl Load {
    pub(crate) async fn connect(
        count: usize,
        host: &str,
        address: SocketAddr,
        trust: &Trust,
    ) -> Result<Self> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(Line::connect(host, address, trust).await?);
        }
        Ok(Self { lines })
    }

    /// Sends every request once, as fast as answers come.
    pub(crate) async fn once(
        &mut self,
        requests: &Arc<Vec<Vec<u8>>>,
        is_fine: fn(&Reply) -> bool,
    ) -> Result<()> {
        let end = requests.len();
        self.drive(requests, is_fine, move |number| number < end)
            .await
    }

    /// Sends the requests in turn for that long; gives the answers per second.
    pub(crate) async fn repeat(
        &mut self,
        requests: &Arc<Vec<Vec<u8>>>,
        is_fine: fn(&Reply) -> bool,
        time: Duration,
    ) -> Result<f64> {
        let begin = Instant::now();
        let counted = Arc::new(AtomicUsize::new(0));
        let count = counted.clone();
        self.drive(requests, is_fine, move |number| {
            count.store(number, Ordering::Relaxed);
            begin.elapsed() < time
        })
        .await?;
        let count = u32::try_from(counted.load(Ordering::Relaxed))?;
        Ok(f64::from(count) / begin.elapsed().as_secs_f64())
    }

    async fn drive(
        &mut self,
        requests: &Arc<Vec<Vec<u8>>>,
        is_fine: fn(&Reply) -> bool,
        goes_on: impl Fn(usize) -> bool + Clone + Send + 'static,
    ) -> Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for mut line in self.lines.drain(..) {
            let (next, requests, goes_on) = (next.clone(), requests.clone(), goes_on.clone());
            workers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if !goes_on(number) {
                        return anyhow::Ok(line);
                    }
                    let reply = line.ask(&requests[number % requests.len()]).await?;
                    if !is_fine(&reply) {
                        let body = String::from_utf8_lossy(&reply.body);
                        bail!("request {number} was answered {}: {body}", reply.code);
                    }
                }
            });
        }
        while let Some(line) = workers.join_next().await {
            self.lines.push(line??);
        }
        Ok(())
    }
}
