//! A roll that is kept gives the same list as a look at every task.

use proptest::prelude::*;

use super::*;
use crate::checkpoint::status::TaskState;
use crate::store::roll::Roll;

/// One thing that happens between two looks.
#[derive(Debug, Clone)]
enum Event {
    Say {
        agent: usize,
        status: usize,
        new: bool,
    },
    Pass(u64),
    /// A clock is set back.
    Back(u64),
    /// All that is older is pruned.
    Forget(u64),
    Look {
        state: usize,
        limit: u64,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..12usize, 0..9usize, proptest::bool::weighted(0.1))
            .prop_map(|(agent, status, new)| Event::Say { agent, status, new }),
        2 => (0..100u64).prop_map(Event::Pass),
        1 => (0..100u64).prop_map(Event::Back),
        1 => (0..300u64).prop_map(Event::Forget),
        6 => (0..5usize, 0..8u64).prop_map(|(state, limit)| Event::Look { state, limit }),
    ];
    proptest::collection::vec(event, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_kept_roll_gives_the_same_list_as_a_fresh_look(events in events()) {
        let mut cache = Cache::new();
        cache.store.keep_statements();
        let mut rolls: [Roll; 5] = Default::default();
        for event in events {
            match event {
                Event::Say { agent, status, new } => {
                    let agent = format!("agent-{agent}");
                    cache.record(Draft { new, ..Draft::of(&agent, Status::ALL[status]) });
                }
                Event::Pass(time) => cache.pass(seconds(time)),
                Event::Back(time) => cache.now = cache.now.minus(seconds(time)),
                Event::Forget(time) => {
                    let before = cache.now.minus(seconds(time));
                    for _ in 0..10 {
                        cache.store.write(|tx| tx.prune(before)).expect("room");
                    }
                }
                Event::Look { state, limit } => {
                    let roll = &mut rolls[state];
                    let state = TaskState::ALL.get(state).copied();
                    let filter = Filter { state, waiting: false, limit };
                    let kept = cache.store.read(|tx| tx.list_by(roll, state, limit)).expect("a list");
                    let fresh = cache.store.read(|tx| tx.list(&filter)).expect("a list");
                    prop_assert_eq!(format!("{kept:?}"), format!("{fresh:?}"));
                }
            }
        }
    }
}

#[test]
fn a_roll_that_is_kept_does_not_look_at_every_task_again() {
    let mut cache = Cache::new();
    for number in 0..20 {
        cache.say(&format!("agent-{number}"), Status::Working);
        cache.pass(seconds(1));
    }
    let mut roll = Roll::default();
    let running = Some(TaskState::Running);
    let mut look = |cache: &mut Cache| {
        let found = cache.store.read(|tx| tx.list_by(&mut roll, running, 2)).expect("a list");
        found.into_iter().map(|report| report.task.agent_id).collect::<Vec<_>>()
    };
    assert_eq!(look(&mut cache), ["agent-19", "agent-18"]);
    // Changed behind its back: whoever looked at every task would see it.
    let sql = "UPDATE tasks SET updated_at_ms = updated_at_ms + 1000000 WHERE agent_id = 'agent-0'";
    cache.store.connection.execute(sql, []).expect("a change");
    cache.say("agent-5", Status::Working);
    assert_eq!(look(&mut cache), ["agent-5", "agent-19"]);
    cache.say("agent-19", Status::Complete);
    assert_eq!(look(&mut cache), ["agent-5", "agent-18"]);
}
