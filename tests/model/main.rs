//! Both pure halves together, the agent's outbox and host-api's registry, under thousands of random interleavings.
//!
//! No process, no clock, no network: lines are lost with their session, events arrive late, writes are refused, answers
//! are lost, either side forgets everything, and others edit twins. Whatever happened, once all is calm every wanted
//! Service has exactly its right twin, no other twin stands, and the agent knows it.

mod api;
mod world;
mod written;

use proptest::prelude::*;

use crate::world::{Step, World};

fn step() -> impl Strategy<Value = Step> {
    let index = 0..5_u8;
    prop_oneof![
        6 => (index.clone(), 0..4_u8).prop_map(|(index, content)| Step::Put(index, content)),
        2 => index.clone().prop_map(Step::Renew),
        3 => index.clone().prop_map(Step::Delete),
        1 => Just(Step::Relist),
        3 => Just(Step::Connect),
        6 => (1..6_u8).prop_map(Step::Say),
        6 => (1..6_u8).prop_map(Step::Tell),
        8 => (1..4_u8, 0..8_u8).prop_map(|(objects, fault)| Step::Work(objects, fault)),
        6 => (1..6_u8).prop_map(Step::Events),
        2 => Just(Step::Cut),
        1 => Just(Step::AgentRestart),
        1 => Just(Step::HostApiRestart),
        2 => (index.clone(), 0..4_u8).prop_map(|(index, how)| Step::Damage(index, how)),
        1 => index.clone().prop_map(Step::Squat),
        1 => Just(Step::Leave),
        2 => (0..90_u16).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_both_sides_agree_in_the_end(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check().map_err(TestCaseError::fail)?;
    }
}
