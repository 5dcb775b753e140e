//! The outbox against a model of host-api, under random interleavings.
//!
//! The model believes what it is told and nothing else, as the real one does. Whatever happened before, a last session in
//! which every line arrives must leave it with exactly the wanted set, and both sides with the same tally.

use std::collections::{BTreeMap, VecDeque};

use k3k_expose_proto::message::{Answer, Hello, Resume, Want};
use k3k_expose_proto::{FromAgent, Outcome, Reason};
use proptest::prelude::*;

use super::tests::{key, uid, wanted, welcome};
use super::*;

const KEYS: u8 = 6;
const IN_FLIGHT: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    /// The object at a key is this version of this object.
    Put(u8, u8, u8),
    /// The object at a key was deleted.
    Delete(u8),
    /// A list without these keys.
    Relist(Vec<u8>),
    /// A `hello` that is welcomed a few steps later, or never.
    Hello,
    /// The `hello` is welcomed. Host-api may ask for a snapshot even where it need not.
    Welcome(bool),
    /// Lines leave and arrive.
    Deliver(u8),
    /// One of the open puts is answered.
    Answer(u8),
    /// The connection ends: lines under way are lost.
    Cut,
    /// Host-api wants keys, or everything.
    Want(Option<u8>),
    /// Host-api starts anew.
    Restart,
}

type State = BTreeMap<Key, (Uid, Hash)>;

#[derive(Default)]
struct Model {
    epoch: u64,
    version: u64,
    /// What it holds: the twins.
    state: State,
    /// What this session has said.
    session: State,
    /// Whether the session's view was compared with the twins: only then a `hello` may be resumed.
    compared: bool,
    open: Vec<(Key, Uid, Hash)>,
}

impl Model {
    fn take(&mut self, line: FromAgent) {
        match line {
            FromAgent::Put(put) => {
                let object = (put.uid.clone(), put.hash);
                self.session.insert(put.key.clone(), object.clone());
                self.state.insert(put.key.clone(), object);
                // The latest state of a key is the one that is answered.
                self.open.retain(|(key, ..)| *key != put.key);
                self.open.push((put.key, put.uid, put.hash));
            }
            FromAgent::Delete(delete) => {
                let known = self.session.remove(&delete.key);
                assert_eq!(known.map(|(uid, _)| uid), Some(delete.uid), "only what was said is deleted");
                self.state.remove(&delete.key);
            }
            FromAgent::End(end) => {
                assert_eq!((end.count, end.root), tally(&self.session), "the snapshot adds up");
                self.state = self.session.clone();
                self.compared = true;
            }
            FromAgent::Beat(beat) => assert_eq!((beat.count, beat.root), tally(&self.session), "the beat adds up"),
            FromAgent::Hello(_) => panic!("a second hello"),
        }
    }

    fn resume(&mut self, hello: &Hello, snapshot: bool) -> Resume {
        if !snapshot && self.compared && tally(&self.state) == (hello.count, hello.root) {
            self.session = self.state.clone();
            return Resume::Nothing;
        }
        self.session = State::new();
        self.compared = false;
        Resume::Snapshot
    }
}

fn tally(state: &State) -> (u64, k3k_expose_proto::Root) {
    let mut tally = Tally::default();
    for (key, (uid, hash)) in state {
        tally.add(key, uid, *hash);
    }
    (tally.count, tally.root)
}

/// Agent, host-api, and the virtual cluster that both serve.
struct World {
    outbox: Outbox,
    model: Model,
    cluster: BTreeMap<u8, (u8, u8)>,
    hello: Option<Hello>,
    generation: Option<u64>,
    /// Lines that left and did not arrive.
    wire: VecDeque<FromAgent>,
}

impl World {
    fn new() -> Self {
        let mut outbox = Outbox::default();
        outbox.replace(k3k_expose_proto::Resource::Services, &uid("cluster"), Vec::new());
        Self {
            outbox,
            model: Model::default(),
            cluster: BTreeMap::new(),
            hello: None,
            generation: None,
            wire: VecDeque::new(),
        }
    }

    fn change(index: u8, object: (u8, u8)) -> Change {
        wanted(&format!("k{index}"), &format!("u{}", object.0), &object.1.to_string())
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(index, object, content) => {
                if let Some((old, _)) = self.cluster.insert(*index, (*object, *content))
                    && old != *object
                {
                    let gone = Change::Gone(key(&format!("k{index}")), uid(&format!("u{old}")));
                    self.outbox.apply(gone);
                }
                self.outbox.apply(Self::change(*index, (*object, *content)));
            }
            Step::Delete(index) => {
                if let Some((object, _)) = self.cluster.remove(index) {
                    let gone = Change::Gone(key(&format!("k{index}")), uid(&format!("u{object}")));
                    self.outbox.apply(gone);
                }
            }
            Step::Relist(without) => {
                self.cluster.retain(|index, _| !without.contains(index));
                let listed = self.cluster.iter().map(|(index, object)| Self::change(*index, *object));
                self.outbox.replace(k3k_expose_proto::Resource::Services, &uid("cluster"), listed.collect());
            }
            Step::Hello => self.hello = self.outbox.hello(),
            Step::Welcome(snapshot) => {
                if let Some(hello) = self.hello.take() {
                    self.welcome(&hello, *snapshot);
                }
            }
            Step::Deliver(lines) => self.deliver(usize::from(*lines)),
            Step::Answer(which) => self.answer(usize::from(*which)),
            Step::Cut => self.cut(),
            Step::Want(want) => {
                let want = want.map_or(Want::All, |index| Want::Keys(vec![key(&format!("k{index}"))]));
                if let Some(generation) = self.generation {
                    self.outbox.want(generation, &want);
                }
            }
            Step::Restart => {
                self.cut();
                self.model.epoch += 1;
                self.model.version = 0;
                self.model.compared = false;
            }
        }
        let limit = usize::try_from(IN_FLIGHT).unwrap();
        assert!(self.outbox.session.as_ref().is_none_or(|ledger| ledger.in_flight() <= limit));
    }

    /// A newer session takes over: lines of the older one that did not arrive are not looked at.
    fn welcome(&mut self, hello: &Hello, snapshot: bool) {
        self.wire.clear();
        self.model.open.clear();
        let resume = self.model.resume(hello, snapshot);
        let epoch = format!("e{}", self.model.epoch);
        self.generation = Some(self.outbox.welcome(&welcome(&epoch, resume, IN_FLIGHT)));
        if resume == Resume::Nothing {
            // Whatever the agent lacks is answered: here simply everything.
            let state = self.model.session.clone();
            self.model.open = state.into_iter().map(|(key, (uid, hash))| (key, uid, hash)).collect();
        }
    }

    fn deliver(&mut self, lines: usize) {
        let Some(generation) = self.generation else { return };
        for _ in 0..lines {
            self.wire.extend(self.outbox.next(generation));
        }
        // Some of them stay under way.
        for _ in 0..lines.div_ceil(2) {
            if let Some(line) = self.wire.pop_front() {
                self.model.take(line);
            }
        }
    }

    fn answer(&mut self, which: usize) {
        let Some(generation) = self.generation.filter(|_| !self.model.open.is_empty()) else {
            return;
        };
        let (key, uid, hash) = self.model.open.remove(which % self.model.open.len());
        self.model.version += 1;
        self.outbox.answer(
            generation,
            Answer {
                key,
                uid,
                hash,
                version: self.model.version,
                outcome: Outcome::Applied,
                reason: Reason::Applied,
                message: String::new(),
                numbers: None,
                load_balancer: Vec::new(),
                conditions: Vec::new(),
            },
        );
    }

    fn cut(&mut self) {
        self.wire.clear();
        self.model.open.clear();
        self.hello = None;
        if let Some(generation) = self.generation.take() {
            self.outbox.close(generation);
        }
        self.outbox.withdraw();
    }

    /// Everything arrives and everything is answered, in a new session if the present one is broken.
    fn settle(&mut self) {
        let is_sound = self
            .generation
            .is_some_and(|generation| self.outbox.is_current(generation) && !self.outbox.is_broken(generation));
        if !is_sound {
            self.cut();
            let hello = self.outbox.hello().unwrap();
            self.welcome(&hello, false);
        }
        for _ in 0..200 {
            self.deliver(2);
            self.answer(0);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..KEYS, 0..2_u8, 0..3_u8).prop_map(|(index, object, content)| Step::Put(index, object, content)),
        4 => (0..KEYS).prop_map(Step::Delete),
        1 => proptest::collection::vec(0..KEYS, 0..2).prop_map(Step::Relist),
        3 => Just(Step::Hello),
        3 => any::<bool>().prop_map(Step::Welcome),
        8 => (1..5_u8).prop_map(Step::Deliver),
        6 => any::<u8>().prop_map(Step::Answer),
        2 => Just(Step::Cut),
        2 => proptest::option::of(0..KEYS).prop_map(Step::Want),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_a_last_undisturbed_session_ends_in_equal_state(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        let expected: State = world
            .cluster
            .iter()
            .map(|(index, object)| match World::change(*index, *object) {
                Change::Wanted(key, uid, packed) => (key, (uid, packed.hash())),
                other => panic!("{other:?}"),
            })
            .collect();
        prop_assert_eq!(&world.model.state, &expected);
        prop_assert_eq!(world.outbox.in_sync(), Ok(()));
        let generation = world.generation.unwrap();
        world.model.take(world.outbox.beat(generation, true).unwrap());
        let tally = world.outbox.wanted;
        prop_assert_eq!((tally.count, tally.root), super::model::tally(&expected));
    }
}
