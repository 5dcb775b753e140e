//! Every reader that meets strangers, on a corpus and on what random changes make of it, for a fixed number of executions.
//!
//! `cargo-fuzz` beside this file runs the same functions for as long as one likes, where nightly exists:
//! `cd tests/fuzz/cargo-fuzz && cargo +nightly fuzz run codec ../corpus/codec`. What it finds goes into the corpus.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use k3k_expose_proto::line::{Lines, decode, encode};
use k3k_expose_proto::message::{FromAgent, FromHost, Message};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Executions of each target beside its corpus.
const EXECUTIONS: u32 = 3_000;

/// Puts bytes to one reader; gives what did not hold.
type Target = fn(&[u8]) -> Result<(), &'static str>;

const TARGETS: [(&str, Target); 6] = [
    ("codec", codec),
    ("projection", k3k_expose_agent::fuzz::projection),
    ("translation", k3k_expose_host_api::fuzz::translation),
    ("review", k3k_expose_host_api::fuzz::review),
    ("exposure", k3k_expose_host_api::fuzz::exposure),
    ("configuration", k3k_expose_host_api::fuzz::configuration),
];

/// One change to a seed.
#[derive(Clone, Debug)]
enum Change {
    Overwrite(Index, u8),
    Remove(Index, Index),
    Insert(Index, String),
    Repeat(Index, Index),
    Truncate(Index),
}

/// Bytes of a stream, in two chunks, to lines to messages and back.
fn codec(bytes: &[u8]) -> Result<(), &'static str> {
    let mut lines = Lines::default();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for mut chunk in [first, second] {
        while let Ok(Some(line)) = lines.next(&mut chunk) {
            comes_back::<FromAgent>(line)?;
            comes_back::<FromHost>(line)?;
        }
    }
    Ok(())
}

fn comes_back<M: Message + Serialize + DeserializeOwned + PartialEq>(line: &[u8]) -> Result<(), &'static str> {
    let Ok(message) = decode::<M>(line) else {
        return Ok(());
    };
    // What was short may be long in the canonical form.
    let Ok(again) = encode(&message) else {
        return Ok(());
    };
    match decode::<M>(again.strip_suffix(b"\n").unwrap_or(&again)) {
        Ok(heard) if heard == message => Ok(()),
        _ => Err("a message that does not come back"),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder().join("corpus").join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn change() -> impl Strategy<Value = Change> {
    let piece = prop_oneof![
        Just(String::new()),
        "[{}\\[\\]\",:\\\\]{1,20}",
        "\\PC{1,12}",
        Just("null".to_owned()),
        Just("-1".to_owned()),
        Just("65536".to_owned()),
        Just("1e999".to_owned()),
        Just("\\ud800".to_owned()),
        Just("\u{202e}\u{1b}[31m".to_owned()),
        Just("k3k.io/clusterName".to_owned()),
        Just("{".repeat(200)),
        Just("x".repeat(20_000)),
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Overwrite(at, byte)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Remove(from, to)),
        (any::<Index>(), piece).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Repeat(from, to)),
        any::<Index>().prop_map(Change::Truncate),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let span = |from: &Index, to: &Index| {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            from.min(to)..from.max(to)
        };
        match change {
            Change::Overwrite(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Remove(from, to) => drop(bytes.drain(span(from, to))),
            Change::Insert(at, piece) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, piece.bytes());
            }
            Change::Repeat(from, to) => {
                let piece = bytes[span(from, to)].to_vec();
                bytes.extend(piece);
            }
            Change::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
    bytes
}

#[test]
fn no_reader_panics_or_lets_through_what_it_must_not() {
    for (name, target) in TARGETS {
        let seeds = corpus(name);
        assert!(!seeds.is_empty(), "{name} has no corpus");
        for (number, seed) in seeds.iter().enumerate() {
            target(seed).unwrap_or_else(|broken| panic!("{name}, seed {number}: {broken}"));
        }
        let config = Config { cases: EXECUTIONS, failure_persistence: None, ..Config::default() };
        let strategy = (any::<Index>(), proptest::collection::vec(change(), 0..6));
        let run = TestRunner::new(config).run(&strategy, |(seed, changes)| {
            let bytes = changed(seed.get(&seeds).clone(), &changes);
            target(&bytes).map_err(TestCaseError::fail)
        });
        run.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
}

#[test]
fn the_corpus_reaches_behind_each_reader() {
    // Seeds that every reader throws away at once would test nothing.
    let put = |seed: &Vec<u8>| matches!(decode::<FromAgent>(seed.trim_ascii_end()), Ok(FromAgent::Put(_)));
    assert!(corpus("translation").iter().any(put));
    let service = |seed: &Vec<u8>| serde_json::from_slice::<k8s_openapi::api::core::v1::Service>(seed).is_ok();
    assert!(corpus("projection").iter().any(service));
    let judged = |seed: &Vec<u8>| {
        let parts: serde_json::Value = serde_json::from_slice(seed).unwrap();
        let service: k3k_expose_proto::Service = serde_json::from_value(parts["service"].clone()).unwrap();
        let spec = |spec: &serde_json::Value| {
            serde_json::from_value::<k3k_expose_host_api::policy::resource::ExposurePolicySpec>(spec.clone()).unwrap()
        };
        let specs: Vec<_> = parts["policies"].as_object().unwrap().values().map(spec).collect();
        let routed = parts["ingress"]["rules"].is_array();
        routed
            && !service.ports.is_empty()
            && specs.iter().any(|spec| spec.allow.is_some() && spec.namespace_selector.is_some())
    };
    assert!(corpus("exposure").iter().any(judged));
}

#[test]
fn cargo_fuzz_knows_the_same_targets() {
    let ours: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let entries = fs::read_dir(folder().join("cargo-fuzz/fuzz_targets")).unwrap();
    let theirs: BTreeSet<String> =
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(theirs, ours);
    let manifest = fs::read_to_string(folder().join("cargo-fuzz/Cargo.toml")).unwrap();
    assert!(ours.iter().all(|name| manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\""))));
}
