//! The facts of one message, by what kind of message it is.

use super::field::{Field, Number, Scope};
use super::reply::ReplyFacts;
use super::request::RequestFacts;

/// The facts found so far.
#[derive(Clone, Copy, Debug)]
pub(super) enum Facts {
    Request(RequestFacts),
    Reply(ReplyFacts),
    /// Nothing is looked for.
    Skipped,
}

impl Facts {
    /// The interest in the element `key` of `scope`; `is_first` for the first one.
    #[inline]
    pub(super) fn field(&mut self, scope: Scope, key: &[u8], is_first: bool) -> Field {
        match self {
            Self::Request(facts) => facts.field(scope, key, is_first),
            Self::Reply(_) => ReplyFacts::field(scope, key),
            Self::Skipped => Field::None,
        }
    }

    /// Keeps a number found for `field`.
    pub(super) fn number(&mut self, field: Field, number: Number) {
        match (self, field) {
            (Self::Request(facts), Field::Request(field)) => facts.number(field, number),
            (Self::Reply(facts), Field::Reply(field)) => facts.number(field, number),
            _ => {}
        }
    }

    /// Keeps an `ObjectId` found for `field`.
    pub(super) fn object_id(&mut self, field: Field, id: [u8; 12]) {
        if let (Self::Reply(facts), Field::ProcessId) = (self, field) {
            facts.process_id(id);
        }
    }

    /// Keeps a UUID found for `field`.
    pub(super) fn uuid(&mut self, field: Field, uuid: [u8; 16]) {
        if let (Self::Request(facts), Field::SessionId) = (self, field) {
            facts.fields.lsid = Some(uuid);
        }
    }

    /// Keeps the beginning of a string found for `field`.
    pub(super) fn text(&mut self, field: Field, text: &[u8]) {
        if let (Self::Reply(facts), Field::Text(field)) = (self, field) {
            facts.text(field, text);
        }
    }

    /// Keeps whether the array found for `field` is empty.
    pub(super) fn emptiness(&mut self, field: Field, is_empty: bool) {
        if let Self::Reply(facts) = self
            && field == Field::Batch
        {
            facts.fields.batch_is_empty = Some(is_empty);
        }
    }

    /// The walk ended at a limit before the body did.
    pub(super) fn truncate(&mut self) {
        match self {
            Self::Request(facts) => facts.fields.is_truncated = true,
            Self::Reply(facts) => facts.fields.is_truncated = true,
            Self::Skipped => {}
        }
    }
}
