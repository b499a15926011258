//! Whatever the harness starts, it ends: in order, by a signal, and when it is killed itself.

#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rehome_testing::{Process, Signal, expect, free_port, loopback, scratch, tools};

const MINUTE: Duration = Duration::from_mins(1);
const PROGRAM: &str = env!("CARGO_BIN_EXE_cluster");

/// `cluster exec` with a control plane of its own, running a shell script.
fn exec(script: &str) -> Process {
    let log = scratch("exec").unwrap().join("log");
    let arguments = [
        "-u",
        "REHOME_CLUSTER",
        "-u",
        "USE_EXISTING_CLUSTER",
        PROGRAM,
        "exec",
        "sh",
        "-c",
    ];
    let no_env = [("", ""); 0];
    // `env` becomes the program, so the process is the program's own.
    Process::spawn(
        "cluster exec",
        "env",
        arguments.into_iter().chain([script]),
        no_env,
        log,
    )
    .unwrap()
}

/// Processes that name this directory in their arguments.
fn processes_of(directory: &Path) -> Vec<String> {
    let output = Command::new("ps")
        .args(["-eww", "-o", "pid=,args="])
        .output()
        .unwrap();
    let directory = directory.to_str().unwrap();
    let all = String::from_utf8(output.stdout).unwrap();
    all.lines()
        .filter(|line| line.contains(directory))
        .map(str::to_owned)
        .collect()
}

async fn state_of(process: &mut Process) -> PathBuf {
    let line = process
        .wait_for_line("state=", Duration::from_mins(10))
        .await
        .unwrap();
    PathBuf::from(line.trim_start_matches("state="))
}

async fn expect_nothing_left(directory: &Path) {
    let parent = directory.parent().unwrap();
    expect(
        "the end of every process and of the state",
        MINUTE,
        async || (processes_of(parent).is_empty() && !parent.exists()).then_some(()),
    )
    .await;
}

const WAIT: &str = "echo state=$REHOME_CLUSTER; exec tail -f /dev/null \"$REHOME_CLUSTER/pid\"";

#[tokio::test]
async fn nothing_is_left_when_the_harness_is_killed() {
    let mut process = exec(WAIT);
    let directory = state_of(&mut process).await;
    // etcd, API server, controller manager, the command and the warden.
    let running = processes_of(directory.parent().unwrap());
    assert!(running.len() >= 5, "{running:#?}");
    process.kill().unwrap();
    expect_nothing_left(&directory).await;
}

#[tokio::test]
async fn a_signal_ends_the_command_and_then_the_control_plane() {
    let mut process =
        exec("trap 'exit 0' TERM; echo state=$REHOME_CLUSTER; while :; do sleep 0.1; done");
    let directory = state_of(&mut process).await;
    let status = process.terminate(MINUTE).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", process.output().unwrap());
    expect_nothing_left(&directory).await;
}

#[tokio::test]
async fn the_exit_code_of_the_command_is_passed_on_and_a_failure_keeps_the_logs() {
    let mut process = exec("echo state=$REHOME_CLUSTER; exit 7");
    let directory = state_of(&mut process).await;
    assert_eq!(process.wait(MINUTE).await.unwrap().code(), Some(7));
    assert!(process.output().unwrap().contains("logs are kept in"));
    for log in [
        "logs/etcd.log",
        "logs/kube-apiserver.log",
        "logs/kube-controller-manager.log",
    ] {
        assert!(directory.join(log).is_file(), "{log}");
    }
    expect("the end of every process", MINUTE, async || {
        processes_of(&directory).is_empty().then_some(())
    })
    .await;
    std::fs::remove_dir_all(directory.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn the_control_plane_for_people_goes_up_once_and_comes_down() {
    let cache = scratch("cache").unwrap();
    // A cache of the test's own, with the program that is built already.
    let built = tools::kube().unwrap().parent().unwrap().to_owned();
    std::fs::create_dir(cache.join("rehome")).unwrap();
    let link = cache.join("rehome").join(built.file_name().unwrap());
    std::os::unix::fs::symlink(&built, link).unwrap();
    let cluster = async |arguments: &'static [&str]| -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("XDG_CACHE_HOME", &cache);
        command
            .env_remove("REHOME_CLUSTER")
            .env_remove("USE_EXISTING_CLUSTER");
        tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap()
    };
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let early = cluster(&["kubectl", "get", "namespaces"]).await;
    assert!(text(&early).contains("make cluster-up") && !early.status.success());
    let up = cluster(&["up"]).await;
    assert!(up.status.success(), "{}", text(&up));
    let running = processes_of(&cache.join("rehome/cluster"));
    let again = cluster(&["up"]).await;
    assert!(text(&again).contains("up already"));
    assert_eq!(processes_of(&cache.join("rehome/cluster")), running);
    let names = cluster(&["kubectl", "get", "namespace", "kube-system", "-o", "name"]).await;
    assert_eq!(
        String::from_utf8_lossy(&names.stdout).trim(),
        "namespace/kube-system"
    );
    let down = cluster(&["down"]).await;
    assert!(down.status.success(), "{}", text(&down));
    expect("the end of every process", MINUTE, async || {
        processes_of(&cache.join("rehome/cluster"))
            .is_empty()
            .then_some(())
    })
    .await;
    assert!(!cache.join("rehome/cluster").exists());
    assert!(text(&cluster(&["down"]).await).contains("no control plane is up"));
}

#[tokio::test]
async fn a_process_is_awaited_paused_and_ended() {
    let log = scratch("process").unwrap().join("log");
    let none = [("", ""); 0];
    let script = "echo ready to serve; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done";
    let mut process = Process::spawn("script", "sh", ["-c", script], none, &log).unwrap();
    let line = process.wait_for_line("ready", MINUTE).await.unwrap();
    assert_eq!(line, "ready to serve");
    process.signal(Signal::STOP).unwrap();
    let paused = process
        .terminate(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(
        paused.to_string().contains("script has not ended within"),
        "{paused}"
    );
    // It did not end when asked, so it was killed.
    assert!(process.ended().unwrap().is_some());

    let mut process = Process::spawn("script", "sh", ["-c", script], none, &log).unwrap();
    process.wait_for_line("ready", MINUTE).await.unwrap();
    assert_eq!(process.terminate(MINUTE).await.unwrap().code(), Some(3));
    assert!(process.output().unwrap().ends_with("bye\n"));
    assert!(process.signal(Signal::CONT).is_err());
}

#[tokio::test]
async fn a_process_that_ends_early_is_not_waited_for() {
    let log = scratch("process").unwrap().join("log");
    let none = [("", ""); 0];
    let script = ["-c", "echo no licence found; exit 1"];
    let mut process = Process::spawn("shop", "sh", script, none, log).unwrap();
    let address = (loopback(1), free_port(loopback(1)).unwrap()).into();
    let error = process
        .wait_for_port(address, Duration::from_mins(10))
        .await
        .unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("shop ended before"), "{error}");
    assert!(error.ends_with("no licence found"), "{error}");
}

#[tokio::test]
async fn a_dropped_process_is_gone() {
    let directory = scratch("dropped").unwrap();
    let file = directory.join("file");
    let none = [("", ""); 0];
    let tail = Path::new("tail");
    let process = Process::spawn(
        "tail",
        tail,
        ["-F", file.to_str().unwrap()],
        none,
        directory.join("log"),
    )
    .unwrap();
    assert_eq!(processes_of(&directory).len(), 1);
    drop(process);
    assert!(processes_of(&directory).is_empty());
}
