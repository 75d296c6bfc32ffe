//! What holds of a tracker whatever its peers say.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks the facts it is about"
)]

use bson::raw::RawDocumentBuf;
use bson::rawdoc;
use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::wire::Direction;

/// Something a peer or the proxy does to a connection.
#[derive(Clone, Debug)]
enum Act {
    Ask {
        id: i32,
        document: usize,
        flags: u32,
    },
    Answer {
        to: i32,
        id: i32,
        document: usize,
        flags: u32,
    },
    Garbage(Direction, Vec<u8>),
    Dial,
    Drain,
    GiveUp,
    End,
}

/// Where in [`requests`] the ordinary commands begin.
const ORDINARY_FROM: usize = 7;

fn requests() -> Vec<RawDocumentBuf> {
    vec![
        first_hello(),
        bare_hello(),
        streaming_hello(),
        speculative_hello("SCRAM-SHA-1", b"n,,n=alice,r=x"),
        rawdoc! { "saslStart": 1, "mechanism": "PLAIN" },
        sasl_continue(),
        rawdoc! { "authenticate": 1, "mechanism": "MONGODB-X509" },
        find(),
        rawdoc! { "getMore": 9_i64, "collection": "a" },
        rawdoc! { "killCursors": "a", "cursors": [9_i64] },
        rawdoc! { "buildInfo": 1 },
        rawdoc! { "abortTransaction": 1, "autocommit": false },
    ]
}

fn replies() -> Vec<RawDocumentBuf> {
    vec![
        hello_reply(),
        ok(),
        failed(251, "NoSuchTransaction"),
        cursor(9),
        cursor(0),
        rawdoc! { "done": true, "ok": 1.0 },
        rawdoc! { "done": false, "ok": 1.0 },
        rawdoc! { "speculativeAuthenticate": { "done": false }, "ok": 1.0 },
        rawdoc! { "a": 1 },
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let direction = prop_oneof![Just(Direction::ToServer), Just(Direction::ToClient)];
    let request_flags =
        prop_oneof![4 => Just(0), 1 => Just(MORE_TO_COME), 1 => Just(EXHAUST_ALLOWED)];
    let reply_flags = prop_oneof![3 => Just(0), 1 => Just(MORE_TO_COME)];
    let act = prop_oneof![
        40 => (0..4, 0..requests().len(), request_flags)
            .prop_map(|(id, document, flags)| Act::Ask { id, document, flags }),
        40 => (0..4, 0..4, 0..replies().len(), reply_flags)
            .prop_map(|(to, id, document, flags)| Act::Answer { to, id, document, flags }),
        1 => (direction, proptest::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(direction, bytes)| Act::Garbage(direction, bytes)),
        2 => Just(Act::Dial),
        1 => Just(Act::Drain),
        1 => Just(Act::GiveUp),
        1 => Just(Act::End),
    ];
    proptest::collection::vec(act, 0..80)
}

/// The requests that wait, kept in the plainest way.
#[derive(Debug, Default)]
struct Model(Vec<(i32, bool)>);

impl Model {
    /// `None` once it is not known what is waited for.
    fn follow(mut self, act: &Act) -> Option<Self> {
        match act {
            Act::Ask {
                id,
                document,
                flags,
            } => {
                if *flags != MORE_TO_COME {
                    self.0.push((*id, *document >= ORDINARY_FROM));
                }
            }
            Act::Answer { to, id, flags, .. } => {
                let place = self.0.iter().position(|(expected, _)| expected == to);
                match place {
                    Some(place) if *flags == MORE_TO_COME => self.0[place].0 = *id,
                    Some(place) => {
                        self.0.remove(place);
                    }
                    None => {}
                }
            }
            Act::Garbage(..) | Act::GiveUp | Act::End => return None,
            Act::Dial | Act::Drain => {}
        }
        Some(self)
    }

    fn in_flight(&self) -> u32 {
        let ordinary = self.0.iter().filter(|(_, is_ordinary)| *is_ordinary);
        u32::try_from(ordinary.count()).unwrap()
    }
}

fn perform(script: &mut Script, act: &Act) {
    let now = ms(script.now);
    match act {
        Act::Ask {
            id,
            document,
            flags,
        } => script.client(&op_msg(*id, 0, *flags, &requests()[*document])),
        Act::Answer {
            to,
            id,
            document,
            flags,
        } => script.server(&op_msg(*id, *to, *flags, &replies()[*document])),
        Act::Garbage(direction, bytes) => script.chunk(*direction, bytes),
        Act::Dial => script.tracker.dialled(now, &mut script.facts),
        Act::Drain => script.tracker.start_draining(now, &mut script.facts),
        Act::GiveUp => {
            script
                .tracker
                .turn_opaque(OpaqueReason::Budget, now, &mut script.facts);
        }
        Act::End => {
            script.end(Initiator::Client);
        }
    }
}

/// A conversation with something of everything.
fn transcript() -> Vec<(Direction, Vec<u8>)> {
    let get_more = rawdoc! { "getMore": 9_i64, "collection": "a" };
    let batch = |id: i64| rawdoc! { "cursor": { "id": id, "nextBatch": [1] }, "ok": 1.0 };
    let kill = rawdoc! { "killCursors": "a", "cursors": [4_i64] };
    let done = rawdoc! { "done": true, "ok": 1.0 };
    let accepted = rawdoc! {
        "isWritablePrimary": true, "speculativeAuthenticate": { "done": false }, "ok": 1.0,
    };
    let hello = speculative_hello("SCRAM-SHA-1", b"n,,n=alice,r=x");
    let requests = [
        op_query(0, &hello),
        op_msg(1, 0, 0, &sasl_continue()),
        op_msg(2, 0, MORE_TO_COME, &find()),
        snappy_msg(3, 0, 0, &find()),
        op_msg(4, 0, EXHAUST_ALLOWED, &get_more),
        op_msg(5, 0, 0, &kill),
        op_msg(6, 0, 0, &find()),
    ];
    let replies = [
        op_reply(90, 0, &accepted),
        op_msg(91, 1, 0, &done),
        snappy_msg(93, 3, 0, &cursor(9)),
        op_msg(94, 4, MORE_TO_COME, &batch(9)),
        op_msg(95, 94, 0, &batch(0)),
        op_msg(96, 5, 0, &ok()),
        op_msg(97, 6, 0, &failed(91, "ShutdownInProgress")),
    ];
    let order = [(1, 1), (1, 1), (2, 1), (3, 4)];
    let (mut requests, mut replies) = (requests.into_iter(), replies.into_iter());
    let mut chunks = Vec::new();
    for (asked, answered) in order {
        chunks.push((
            Direction::ToServer,
            requests.by_ref().take(asked).collect::<Vec<_>>().concat(),
        ));
        chunks.push((
            Direction::ToClient,
            replies.by_ref().take(answered).collect::<Vec<_>>().concat(),
        ));
    }
    chunks
}

/// All that is told when each chunk comes in pieces of at most `sizes` bytes, in turn, at one moment.
fn told_of(chunks: &[(Direction, Vec<u8>)], sizes: &[usize]) -> Vec<Fact> {
    let mut script = Script::dialled();
    let mut sizes = sizes.iter().copied().cycle();
    for (direction, bytes) in chunks {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(usize::MAX).min(rest.len());
            let (piece, behind) = rest.split_at(size);
            script.now = 1;
            script.chunk(*direction, piece);
            rest = behind;
        }
    }
    script.facts.0
}

#[test]
fn the_transcript_is_a_whole_conversation() {
    let told = told_of(&transcript(), &[]);
    let exchanges = told.iter().filter(|fact| matches!(fact, Fact::Exchange(_)));
    assert_eq!(exchanges.count(), 6);
    assert!(told.contains(&Fact::Killed(4)));
    assert_eq!(told.last(), Some(&Fact::Activity(State::Idle, 0)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_messages_leaves_a_consistent_tracker(acts in acts()) {
        let mut script = Script::accepted();
        let mut told = (State::Connecting, 0);
        let mut seen = [0_u64; 4];
        let mut model = Some(Model::default());
        for act in &acts {
            perform(&mut script, act);
            if matches!(act, Act::End) {
                break;
            }
            model = model.and_then(|model| model.follow(act));
            if let Some(model) = &model {
                prop_assert_eq!(model.in_flight(), script.tracker.in_flight());
            }
            for fact in std::mem::take(&mut script.facts.0) {
                match fact {
                    Fact::Activity(state, in_flight) => {
                        prop_assert_ne!(told, (state, in_flight), "told without a change");
                        told = (state, in_flight);
                    }
                    Fact::Exchange(exchange) => {
                        prop_assert!(exchange.started_at < exchange.ended_at);
                        seen[0] += 1;
                    }
                    Fact::Observed(Observation::HandshakeSeen { .. }) => seen[1] += 1,
                    Fact::Observed(Observation::Ready { .. }) => seen[2] += 1,
                    Fact::Observed(Observation::TurnedOpaque(_)) => seen[3] += 1,
                    _ => {}
                }
            }
            let tracker = &script.tracker;
            prop_assert_eq!(told, (tracker.state(), tracker.in_flight()));
            let waiting = u64::from(tracker.in_flight());
            prop_assert!(waiting + seen[0] <= tracker.requests_count());
            prop_assert!(!tracker.is_at_rest() || waiting == 0);
            prop_assert!(tracker.state() != State::Opaque || waiting == 0);
            prop_assert!(tracker.state() != State::Active || waiting > 0);
            prop_assert!(tracker.state() != State::Idle || waiting == 0);
        }
        prop_assert!(seen[1..].iter().all(|count| *count <= 1), "{:?}", seen);
    }

    #[test]
    fn any_split_into_chunks_tells_the_same(sizes in proptest::collection::vec(1_usize..200, 1..20)) {
        let transcript = transcript();
        prop_assert_eq!(told_of(&transcript, &sizes), told_of(&transcript, &[]));
    }

    #[test]
    fn damaged_conversations_are_survived(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        sizes in proptest::collection::vec(1_usize..200, 1..4),
    ) {
        let mut chunks = transcript();
        for (place, byte) in damage {
            let mut all: Vec<_> = chunks.iter_mut().flat_map(|(_, bytes)| bytes).collect();
            let place = place.index(all.len());
            *all[place] = byte;
        }
        let told = told_of(&chunks, &sizes);
        prop_assert!(told.len() > 1);
    }
}
