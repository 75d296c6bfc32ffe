//! What is looked for in the body of a reply.
//!
//! Sources: MongoDB Database Commands reference § Response; specifications repository:
//! server-discovery-and-monitoring/server-discovery-and-monitoring.md § Parsing a "not writable primary" and
//! § topologyVersion; `find_getmore_killcursors_commands.md`; retryable-writes/retryable-writes.md § Error Labels.

use super::field::{Field, Number, ReplyNumber, ReplyText, Scope};
use super::{CodeName, ReplyFields, TopologyVersion};

/// The facts found so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyFacts {
    pub(super) fields: ReplyFields,
    process_id: Option<[u8; 12]>,
    counter: Option<i64>,
    /// `OP_REPLY` said `QueryFailure`, whatever its document says.
    has_failed: bool,
}

impl ReplyFacts {
    pub(super) fn new() -> Self {
        Self {
            fields: ReplyFields::default(),
            process_id: None,
            counter: None,
            has_failed: false,
        }
    }

    /// The interest in the element `key` of `scope`.
    pub(super) fn field(scope: Scope, key: &[u8]) -> Field {
        match scope {
            Scope::Body => Self::body_field(key),
            Scope::Cursor => match key {
                b"id" => Field::Reply(ReplyNumber::CursorId),
                b"firstBatch" | b"nextBatch" => Field::Batch,
                _ => Field::None,
            },
            Scope::ErrorLabels => Field::Text(ReplyText::ErrorLabel),
            Scope::WriteErrors => Field::Inner(Scope::WriteError),
            Scope::WriteError if key == b"code" => Field::Reply(ReplyNumber::WriteErrorCode),
            Scope::WriteConcernError if key == b"code" => {
                Field::Reply(ReplyNumber::WriteConcernErrorCode)
            }
            Scope::TopologyVersion => match key {
                b"processId" => Field::ProcessId,
                b"counter" => Field::Reply(ReplyNumber::Counter),
                _ => Field::None,
            },
            Scope::Plain
            | Scope::Lsid
            | Scope::Listed
            | Scope::Pipeline
            | Scope::PipelineStage
            | Scope::WriteError
            | Scope::WriteConcernError => Field::None,
        }
    }

    fn body_field(key: &[u8]) -> Field {
        match key {
            b"ok" => Field::Reply(ReplyNumber::Ok),
            b"code" => Field::Reply(ReplyNumber::Code),
            b"codeName" => Field::Text(ReplyText::CodeName),
            b"errorLabels" => Field::Inner(Scope::ErrorLabels),
            b"cursor" => Field::Inner(Scope::Cursor),
            b"writeErrors" => Field::Inner(Scope::WriteErrors),
            b"writeConcernError" => Field::Inner(Scope::WriteConcernError),
            b"remainingQuiesceTimeMillis" => Field::Reply(ReplyNumber::RemainingQuiesceMs),
            b"topologyVersion" => Field::Inner(Scope::TopologyVersion),
            _ => Field::None,
        }
    }

    /// Keeps a number found for `field`.
    pub(super) fn number(&mut self, field: ReplyNumber, number: Number) {
        let fields = &mut self.fields;
        match field {
            ReplyNumber::Ok => fields.ok = Some(number.is_true()),
            ReplyNumber::Code => fields.code = number.to_i32(),
            ReplyNumber::CursorId => fields.cursor_id = Some(number.to_i64()),
            ReplyNumber::WriteErrorCode => {
                if let Some(code) = number.to_i32() {
                    fields.write_errors.add(code);
                }
            }
            ReplyNumber::WriteConcernErrorCode => fields.write_concern_error = number.to_i32(),
            ReplyNumber::RemainingQuiesceMs => fields.remaining_quiesce_ms = Some(number.to_i64()),
            ReplyNumber::Counter => self.counter = Some(number.to_i64()),
        }
    }

    /// Keeps `topologyVersion.processId`.
    pub(super) fn process_id(&mut self, id: [u8; 12]) {
        self.process_id = Some(id);
    }

    /// Keeps the beginning of a string found for `field`.
    pub(super) fn text(&mut self, field: ReplyText, text: &[u8]) {
        match field {
            ReplyText::CodeName => self.fields.code_name = Some(CodeName::from_wire(text)),
            ReplyText::ErrorLabel => self.fields.error_labels.insert(text),
        }
    }

    /// Keeps what the head of an `OP_REPLY` says.
    pub(super) fn legacy_head(&mut self, query_failure: bool, cursor_id: i64) {
        self.has_failed = query_failure;
        self.fields.cursor_id = Some(cursor_id);
    }

    /// The fields once the body ended.
    pub(super) fn finish(&mut self) -> &ReplyFields {
        if self.has_failed {
            self.fields.ok = Some(false);
        }
        if let (Some(process_id), Some(counter)) = (self.process_id, self.counter) {
            self.fields.topology_version = Some(TopologyVersion {
                process_id,
                counter,
            });
        }
        &self.fields
    }
}
