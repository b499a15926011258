//! One process that runs devices with an SDK, and the line protocol that tells it what to do.
//!
//! The programs are `tests/conformance/*/*[dD]evice.*`. A command is a line of JSON on standard
//! input; the answer is a line "= " and JSON with the command's `id`, whenever it is there. What
//! else a process prints goes to its log.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command as Program};
use tokio::sync::oneshot;

/// Longest time for an answer. SDKs have limits of their own, of a minute or so for each request.
const PATIENCE: Duration = Duration::from_mins(3);

/// A running program. Dropping it ends it.
pub struct Driver {
    name: String,
    input: tokio::sync::Mutex<ChildStdin>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    _child: Child,
}

/// Who waits for which answer; `None` once the process has ended.
type Waiting = Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>;

impl Driver {
    /// Starts a program; its log goes to `directory`.
    pub fn start(name: &str, mut program: Program, directory: &Path) -> Result<Self> {
        let log = std::fs::File::create(directory.join(format!("{name}.log")))?;
        let mut child = program
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take().context("it has a standard input")?;
        let output = child.stdout.take().context("it has a standard output")?;
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(listen(output, log, waiting.clone()));
        Ok(Self {
            name: name.to_owned(),
            input: tokio::sync::Mutex::new(input),
            waiting,
            next: AtomicU64::new(1),
            _child: child,
        })
    }

    /// Has a command done. What the SDK reports as a failure is the inner error.
    pub async fn ask(&self, mut command: Value) -> Result<Result<Value, String>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let what = format!("{}: {}", self.name, command["do"]);
        command["id"] = json!(id);
        let (sender, answer) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .with_context(|| format!("{what}: the process has ended"))?
            .insert(id, sender);
        let line = format!("{command}\n");
        self.input.lock().await.write_all(line.as_bytes()).await?;
        let answer = tokio::time::timeout(PATIENCE, answer)
            .await
            .with_context(|| format!("{what}: no answer within {PATIENCE:?}"))?;
        let answer = answer.with_context(|| format!("{what}: the process ended meanwhile"))?;
        if let Some(error) = answer["error"].as_str() {
            return Ok(Err(error.to_owned()));
        }
        Ok(Ok(answer["result"].clone()))
    }

    /// As [`Self::ask`], for what must succeed.
    pub async fn must(&self, command: Value) -> Result<Value> {
        let what = command["do"].to_string();
        let answer = self.ask(command).await?;
        answer.map_err(|error| anyhow!("{what}: {error}"))
    }
}

async fn listen(output: ChildStdout, log: std::fs::File, waiting: Arc<Waiting>) {
    hand_out(output, log.into(), &waiting).await;
    // Whoever still waits learns that nothing will come.
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
}

async fn hand_out(output: impl AsyncRead + Unpin, mut log: tokio::fs::File, waiting: &Waiting) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = line
            .strip_prefix("= ")
            .and_then(|json| serde_json::from_str::<Value>(json).ok());
        let Some(answer) = answer else {
            // A log that cannot be written is no reason to stop.
            let _ = log.write_all(format!("{line}\n").as_bytes()).await;
            continue;
        };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = answer["id"]
            .as_u64()
            .and_then(|id| waiting.as_mut()?.remove(&id));
        if let Some(sender) = sender {
            // Whoever asked may have stopped waiting.
            let _ = sender.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Driver, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let mut program = Program::new("sh");
        program.args(["-c", script]);
        (
            Driver::start("sh", program, directory.path()).unwrap(),
            directory,
        )
    }

    #[tokio::test]
    async fn answers_find_whoever_asked_in_whatever_order_they_come() {
        let script = r#"read one; read two; echo chatter
            echo '= {"id":2,"error":"no"}'; echo '= {"id":1,"result":{"x":1}}'; read three"#;
        let (driver, _directory) = shell(script);
        let (one, two) = tokio::join!(
            driver.ask(json!({ "do": "a" })),
            driver.ask(json!({ "do": "b" }))
        );
        assert_eq!(one.unwrap().unwrap()["x"], 1);
        assert_eq!(two.unwrap().unwrap_err(), "no");
    }

    #[tokio::test]
    async fn the_end_of_the_process_is_an_answer_to_everybody() {
        let (driver, _directory) = shell("read one");
        let error = driver.ask(json!({ "do": "a" })).await.unwrap_err();
        assert!(error.to_string().contains("ended"), "{error}");
    }
}
