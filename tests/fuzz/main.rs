//! Fuzzing that needs nothing but the toolchain and ends: each target is fed its seeds and a fixed
//! number of small changes to them, the same in every run. `make fuzz` runs the same targets under
//! libFuzzer for as long as one likes; what that finds becomes a seed here.

#![cfg(test)]

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use mutate::{Chance, mutated};
use rehome_testing::show;
use targets::{TARGETS, Target};

fn corpus(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fuzz/corpus").join(target)
}

/// In the order of their names, so that every machine does the same.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = corpus(target);
    let entries = std::fs::read_dir(&directory).expect("each target has a directory of seeds");
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<_> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    assert!(!seeds.is_empty(), "{} is empty", directory.display());
    seeds
}

/// The words of the dictionary that libFuzzer reads, too: one in quotes on each line.
fn words() -> Vec<Vec<u8>> {
    let words = include_str!("words.dict").lines().filter_map(|line| {
        let word = line.strip_prefix('"')?.strip_suffix('"')?;
        Some(
            word.replace("\\\"", "\"")
                .replace("\\\\", "\\")
                .into_bytes(),
        )
    });
    words.collect()
}

/// Feeds one input; an input that breaks something is kept where libFuzzer would keep it.
fn feed(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target.check(input))) {
        let file = std::env::temp_dir().join(format!("rehome-fuzz-{}", target.name));
        let _ = std::fs::write(&file, input);
        show(format!(
            "{}: the input is in {}",
            target.name,
            file.display()
        ));
        std::panic::resume_unwind(panic);
    }
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("it is in the list");
    let (seeds, words) = (seeds(name), words());
    let begin = Instant::now();
    for seed in &seeds {
        feed(target, seed);
    }
    let mut chance = Chance::new(0x7265_686f_6d65);
    // Ten times as many go on where the bounded run ends: FUZZ_TIMES=10.
    let times: u64 =
        std::env::var("FUZZ_TIMES").map_or(1, |times| times.parse().expect("a number"));
    let mutations = target.executions * times;
    for _ in 0..mutations {
        feed(target, &mutated(&seeds, &words, &mut chance));
    }
    let (count, took) = (mutations + seeds.len() as u64, begin.elapsed());
    show(format!(
        "fuzz {name:<20} {count:>8} executions in {took:.1?}, nothing found"
    ));
}

/// Mutations of inputs that end at the first check would prove little.
#[test]
fn what_sdks_send_comes_through_to_the_store() {
    for (name, sdk) in [
        ("http", "node"),
        ("http", "node_pieces"),
        ("http", "java"),
        ("http", "chunked"),
        ("http", "upgrade_stays"),
        ("mqtt_front", "python_stays"),
        ("mqtt_front", "node_stays"),
        ("mqtt_front", "java"),
        ("amqp_front", "node_sas_pieces"),
        ("amqp_front", "java_address"),
    ] {
        let seed = std::fs::read(corpus(name).join(sdk)).unwrap();
        let target = TARGETS.iter().find(|target| target.name == name);
        let before = targets::created();
        feed(target.unwrap(), &seed);
        assert!(targets::created() > before, "{name}/{sdk}");
    }
}

macro_rules! each_is_fuzzed {
    ($($test:ident = $target:literal;)+) => {
        $(
            #[test]
            fn $test() {
                fuzz($target);
            }
        )+

        #[test]
        fn every_target_is_fuzzed_and_has_its_program() {
            let tested = [$($target),+];
            assert_eq!(tested, TARGETS.map(|target| target.name));
            let manifest = std::fs::read_to_string(
                Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml"),
            );
            let manifest = manifest.unwrap();
            for target in tested {
                assert!(manifest.contains(&format!("name = \"{target}\"\n")), "{target}");
            }
        }
    };
}

each_is_fuzzed! {
    ids_survive_everything = "ids";
    tokens_survive_everything = "sas";
    proxy_headers_survive_everything = "proxy";
    certificates_survive_everything = "certificates";
    tpm_keys_survive_everything = "tpm";
    bodies_survive_everything = "body";
    websocket_handshakes_survive_everything = "websocket_upgrade";
    websocket_frames_survive_everything = "websocket_frames";
    mqtt_sessions_survive_everything_before_connect = "mqtt_before_connect";
    mqtt_sessions_survive_everything_after_connect = "mqtt_after_connect";
    the_mqtt_front_survives_everything = "mqtt_front";
    the_amqp_front_survives_everything = "amqp_front";
    the_https_front_survives_everything = "http";
}
