//! Requests that wait for their replies.
//!
//! A reply is matched by its `responseTo`, oldest request first, never by alternation: old drivers keep a dozen
//! requests in flight on one connection, identifiers may be 0, negative or repeated, and a stream of replies
//! chains each one to the reply before it.
//!
//! ```text
//! request 7 ──▶ waiting for 7
//! reply 90 to 7, more to come  ──▶ waiting for 90
//! reply 91 to 90, more to come ──▶ waiting for 91
//! reply 92 to 91               ──▶ answered
//! ```
//!
//! **Invariant:** at most [`OUTSTANDING_MAX`] requests wait; the oldest makes room. The first one waits in place,
//! so that an ordinary exchange allocates nothing, and an idle connection holds no heap for this.
//!
//! Sources: `OP_MSG` specification § moreToCome, § exhaustAllowed; that follow-ups answer the reply before them was
//! measured on mongod 6.0.5.

use std::collections::VecDeque;

use bson::raw::RawDocument;

use super::document::{array, binary, embedded, find, integer, items};
use super::{CursorEffect, Exchange};
use crate::time::Timestamp;
use crate::wire::{Command, ReplyFields, Request};

/// Requests that may wait on one connection. Legacy Node pools, the only ones that pipeline, were seen with 18.
pub(super) const OUTSTANDING_MAX: usize = 4096;

/// Ids of one `killCursors` kept until it is answered.
const KILLED_MAX: usize = 256;

/// What a request is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To learn about the server.
    Hello {
        /// The server answers when something changed, or after the time stated: it is no work in flight.
        is_awaitable: bool,
        /// It carried `speculativeAuthenticate`.
        is_speculative: bool,
    },
    /// To authenticate.
    Authentication,
    /// Anything else.
    Application,
}

/// What is remembered of a request until its reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) command: Command,
    pub(super) purpose: Purpose,
    /// When its first byte was read.
    pub(super) started_at: Timestamp,
    pub(super) lsid: Option<[u8; 16]>,
    pub(super) is_in_transaction: bool,
    awaits_data: bool,
    has_max_time: bool,
    /// The cursor a `getMore` continues; 0 when it was not found.
    cursor_id: i64,
}

impl Asked {
    pub(super) fn new(request: &Request<'_>, purpose: Purpose, started_at: Timestamp) -> Self {
        let fields = request.fields;
        Self {
            command: request.command,
            purpose,
            started_at,
            lsid: fields.lsid,
            is_in_transaction: fields.in_transaction || fields.starts_transaction,
            awaits_data: fields.awaits_data || fields.is_change_stream,
            has_max_time: fields.has_max_time,
            cursor_id: fields.cursor_id.unwrap_or_default(),
        }
    }

    /// The exchange this request and its last reply make. `is_streamed`: earlier replies announced more.
    pub(super) fn exchange(
        &self,
        reply: &ReplyFields,
        is_streamed: bool,
        ended_at: Timestamp,
    ) -> Exchange {
        Exchange {
            command: self.command,
            started_at: self.started_at,
            ended_at,
            is_ok: reply.ok != Some(false),
            is_timed: !is_streamed && self.is_timed(reply),
            cursor: self.cursor_effect(reply),
        }
    }

    fn is_timed(&self, reply: &ReplyFields) -> bool {
        if self.command == Command::GetMore {
            // Only cursors that wait for data carry maxTimeMS in a getMore, and only they answer with an empty
            // batch and stay open: the server waited for something to happen.
            let has_waited =
                reply.batch_is_empty == Some(true) && reply.cursor_id.is_some_and(|id| id != 0);
            return !self.has_max_time && !has_waited;
        }
        !matches!(
            self.purpose,
            Purpose::Hello {
                is_awaitable: true,
                ..
            }
        )
    }

    fn cursor_effect(&self, reply: &ReplyFields) -> CursorEffect {
        if self.command == Command::GetMore {
            let id = self.cursor_id;
            return match reply.cursor_id {
                _ if id == 0 => CursorEffect::None,
                _ if reply.ok == Some(false) => CursorEffect::Exhausted { id },
                Some(0) => CursorEffect::Exhausted { id },
                Some(_) => CursorEffect::Continued { id },
                None if reply.is_truncated => CursorEffect::Continued { id },
                None => CursorEffect::Exhausted { id },
            };
        }
        match reply.cursor_id {
            Some(id) if id != 0 && reply.ok != Some(false) => CursorEffect::Opened {
                id,
                awaits_data: self.awaits_data,
            },
            Some(_) | None => CursorEffect::None,
        }
    }
}

/// The cursors a `killCursors` names.
pub(super) fn cursors_to_kill(document: &RawDocument) -> Option<Box<[i64]>> {
    let list = find(document, "cursors").and_then(|element| array(&element))?;
    let ids = items(list)
        .take(KILLED_MAX)
        .filter_map(|element| integer(&element));
    Some(ids.collect())
}

/// The sessions an `endSessions` names.
pub(super) fn sessions_to_end(document: &RawDocument) -> Option<Vec<[u8; 16]>> {
    let list = find(document, "endSessions").and_then(|element| array(&element))?;
    let ids = items(list).filter_map(|element| {
        let id = find(embedded(&element)?, "id")?;
        binary(&id)?.try_into().ok()
    });
    Some(ids.collect())
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Pending {
    /// The `responseTo` of the reply it waits for.
    expected: i32,
    /// A reply came and announced more.
    is_streamed: bool,
    asked: Asked,
    killed: Option<Box<[i64]>>,
}

impl Pending {
    pub(super) const fn new(request_id: i32, asked: Asked, killed: Option<Box<[i64]>>) -> Self {
        Self {
            expected: request_id,
            is_streamed: false,
            asked,
            killed,
        }
    }

    pub(super) const fn is_streamed(&self) -> bool {
        self.is_streamed
    }

    /// The cursors that are gone once this request is answered.
    pub(super) fn killed(&self) -> &[i64] {
        self.killed.as_deref().unwrap_or_default()
    }
}

/// The requests that wait on one connection, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    first: Option<Pending>,
    rest: VecDeque<Pending>,
    application_count: u32,
    awaitable_count: u32,
}

/// Where a request that waits was found; good until the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

impl Outstanding {
    /// Requests of the application that wait.
    pub(super) const fn application_count(&self) -> u32 {
        self.application_count
    }

    /// Their commands, oldest first.
    pub(super) fn application_commands(&self) -> impl Iterator<Item = Command> {
        let all = self.first.iter().chain(&self.rest);
        all.filter(|pending| pending.asked.purpose == Purpose::Application)
            .map(|pending| pending.asked.command)
    }

    /// Nothing waits but an awaitable hello, which may be cut off at any time.
    pub(super) fn is_at_rest(&self) -> bool {
        self.len() == usize::try_from(self.awaitable_count).unwrap_or(usize::MAX)
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()).saturating_add(self.rest.len())
    }

    /// Adds a request; the oldest is forgotten when there are too many.
    pub(super) fn push(&mut self, pending: Pending) {
        if self.len() >= OUTSTANDING_MAX {
            self.remove(Place(0));
        }
        self.count(&pending, u32::saturating_add);
        if self.first.is_none() {
            self.first = Some(pending);
        } else {
            self.rest.push_back(pending);
        }
    }

    /// The oldest request that waits for a reply to `response_to`.
    pub(super) fn find(&self, response_to: i32) -> Option<(Place, Asked)> {
        let first = self.first.as_ref()?;
        if first.expected == response_to {
            return Some((Place(0), first.asked));
        }
        let position = self
            .rest
            .iter()
            .position(|pending| pending.expected == response_to)?;
        let pending = self.rest.get(position)?;
        Some((Place(position.saturating_add(1)), pending.asked))
    }

    /// The request got a reply that announces another one, which will answer `reply_id`.
    pub(super) fn follow(&mut self, place: Place, reply_id: i32) {
        let pending = match place.0.checked_sub(1) {
            None => self.first.as_mut(),
            Some(index) => self.rest.get_mut(index),
        };
        if let Some(pending) = pending {
            pending.expected = reply_id;
            pending.is_streamed = true;
        }
    }

    /// Takes a request out.
    pub(super) fn remove(&mut self, place: Place) -> Option<Pending> {
        let removed = match place.0.checked_sub(1) {
            None => std::mem::replace(&mut self.first, self.rest.pop_front()),
            Some(index) => self.rest.remove(index),
        };
        if self.rest.is_empty() && self.rest.capacity() > 0 {
            self.rest = VecDeque::new();
        }
        if let Some(pending) = &removed {
            self.count(pending, u32::saturating_sub);
        }
        removed
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn count(&mut self, pending: &Pending, change: fn(u32, u32) -> u32) {
        match pending.asked.purpose {
            Purpose::Application => self.application_count = change(self.application_count, 1),
            Purpose::Hello {
                is_awaitable: true, ..
            } => self.awaitable_count = change(self.awaitable_count, 1),
            Purpose::Hello { .. } | Purpose::Authentication => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;
    use crate::wire::RequestFields;

    fn asked(command: Command, fields: RequestFields) -> Asked {
        let request = Request {
            command,
            document: None,
            fields: &fields,
        };
        Asked::new(&request, Purpose::Application, Timestamp::default())
    }

    fn pending(request_id: i32) -> Pending {
        let asked = asked(Command::Find, RequestFields::default());
        Pending::new(request_id, asked, None)
    }

    #[test]
    fn repeated_identifiers_are_answered_oldest_first() {
        let mut outstanding = Outstanding::default();
        for id in [0, -5, 0, 7] {
            outstanding.push(pending(id));
        }
        assert_eq!(outstanding.application_count(), 4);
        assert_eq!(outstanding.find(0).unwrap().0, Place(0));
        outstanding.remove(Place(0)).unwrap();
        assert_eq!(outstanding.find(0).unwrap().0, Place(1));
        assert_eq!(outstanding.find(-5).unwrap().0, Place(0));
        assert!(outstanding.find(8).is_none());
        outstanding.remove(Place(2)).unwrap();
        assert!(outstanding.find(7).is_none());
        assert_eq!(outstanding.application_count(), 2);
    }

    #[test]
    fn the_oldest_makes_room_and_an_idle_queue_holds_no_heap() {
        let mut outstanding = Outstanding::default();
        for id in 0..=4096 {
            outstanding.push(pending(id));
        }
        assert_eq!(outstanding.application_count(), 4096);
        assert!(outstanding.find(0).is_none());
        assert!(outstanding.find(4096).is_some());
        while outstanding.remove(Place(0)).is_some() {}
        assert_eq!(outstanding.application_count(), 0);
        assert_eq!(outstanding.rest.capacity(), 0);
    }

    fn check_cursor(
        command: Command,
        ok: bool,
        cursor_id: Option<i64>,
        is_truncated: bool,
        effect: CursorEffect,
    ) {
        let fields = RequestFields {
            cursor_id: (command == Command::GetMore).then_some(9),
            ..RequestFields::default()
        };
        let reply = ReplyFields {
            ok: Some(ok),
            cursor_id,
            is_truncated,
            ..ReplyFields::default()
        };
        assert_eq!(
            asked(command, fields).cursor_effect(&reply),
            effect,
            "{command:?} {reply:?}"
        );
    }

    #[test]
    fn cursors_open_go_on_and_end() {
        let opened = CursorEffect::Opened {
            id: 9,
            awaits_data: false,
        };
        let continued = CursorEffect::Continued { id: 9 };
        let exhausted = CursorEffect::Exhausted { id: 9 };
        check_cursor(Command::Find, true, Some(9), false, opened);
        check_cursor(Command::ListIndexes, true, Some(9), false, opened);
        check_cursor(Command::Find, true, Some(0), false, CursorEffect::None);
        check_cursor(Command::Find, true, None, true, CursorEffect::None);
        check_cursor(Command::GetMore, true, Some(9), false, continued);
        check_cursor(Command::GetMore, true, None, true, continued);
        check_cursor(Command::GetMore, true, Some(0), false, exhausted);
        check_cursor(Command::GetMore, false, None, false, exhausted);
    }

    #[test]
    fn calls_that_wait_for_data_are_not_timed() {
        let check = |fields: RequestFields, reply: ReplyFields, is_timed| {
            let asked = asked(Command::GetMore, fields);
            assert_eq!(
                asked.exchange(&reply, false, Timestamp::default()).is_timed,
                is_timed
            );
            assert!(!asked.exchange(&reply, true, Timestamp::default()).is_timed);
        };
        let plain = RequestFields::default();
        let with_max_time = RequestFields {
            has_max_time: true,
            ..plain
        };
        let full = ReplyFields {
            ok: Some(true),
            cursor_id: Some(9),
            batch_is_empty: Some(false),
            ..ReplyFields::default()
        };
        let empty = ReplyFields {
            batch_is_empty: Some(true),
            ..full
        };
        let drained = ReplyFields {
            cursor_id: Some(0),
            ..empty
        };
        check(plain, full, true);
        check(plain, empty, false);
        check(plain, drained, true);
        check(with_max_time, full, false);
    }

    #[test]
    fn killed_cursors_are_read_up_to_a_limit() {
        let command = rawdoc! { "killCursors": "a", "cursors": [1_i64, 2_i64, "x", 3_i64] };
        assert_eq!(cursors_to_kill(&command).unwrap().as_ref(), [1, 2, 3]);
        assert_eq!(cursors_to_kill(&rawdoc! { "killCursors": "a" }), None);
    }
}
