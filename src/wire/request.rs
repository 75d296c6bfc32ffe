//! What is looked for in the body of a command.
//!
//! Sources: MongoDB Database Commands reference; specifications repository: sessions/driver-sessions.md,
//! transactions/transactions.md, change-streams/change-streams.md § Server Specification,
//! server-discovery-and-monitoring/server-monitoring.md § hello.

use super::field::{Field, Number, RequestNumber, Scope};
use super::{Command, RequestFields};

/// The facts found so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestFacts {
    pub(super) command: Command,
    pub(super) fields: RequestFields,
    is_tailable: bool,
}

impl RequestFacts {
    pub(super) fn new() -> Self {
        Self {
            command: Command::Other,
            fields: RequestFields::default(),
            is_tailable: false,
        }
    }

    /// The interest in the element `key` of `scope`; `is_first` for the first one.
    pub(super) fn field(&mut self, scope: Scope, key: &[u8], is_first: bool) -> Field {
        match scope {
            Scope::Body if is_first => self.first_field(key),
            Scope::Body => self.body_field(key),
            Scope::Lsid if key == b"id" => Field::SessionId,
            Scope::Listed => {
                self.fields.listed_count = self.fields.listed_count.saturating_add(1);
                Field::None
            }
            Scope::Pipeline if is_first => Field::Inner(Scope::PipelineStage),
            Scope::PipelineStage if is_first && key == b"$changeStream" => {
                self.fields.is_change_stream = true;
                Field::None
            }
            Scope::Plain
            | Scope::Lsid
            | Scope::Pipeline
            | Scope::PipelineStage
            | Scope::Cursor
            | Scope::ErrorLabels
            | Scope::WriteErrors
            | Scope::WriteError
            | Scope::WriteConcernError
            | Scope::TopologyVersion => Field::None,
        }
    }

    /// The first key of a body names the command; its value is of interest for two of them.
    fn first_field(&mut self, key: &[u8]) -> Field {
        if key == b"$query" {
            return Field::Wrapped;
        }
        self.command = Command::from_wire(key);
        if self.command == Command::GetMore {
            Field::Request(RequestNumber::CursorId)
        } else if self.command == Command::EndSessions {
            Field::Inner(Scope::Listed)
        } else {
            Field::None
        }
    }

    fn body_field(&mut self, key: &[u8]) -> Field {
        match key {
            b"lsid" => Field::Inner(Scope::Lsid),
            b"txnNumber" => Field::Request(RequestNumber::TxnNumber),
            b"startTransaction" => Field::Request(RequestNumber::StartTransaction),
            b"autocommit" => Field::Request(RequestNumber::Autocommit),
            b"tailable" => Field::Request(RequestNumber::Tailable),
            b"awaitData" => Field::Request(RequestNumber::AwaitData),
            b"maxAwaitTimeMS" => Field::Request(RequestNumber::MaxAwaitTimeMs),
            b"maxTimeMS" => {
                self.fields.has_max_time = true;
                Field::None
            }
            b"topologyVersion" => {
                self.fields.has_topology_version = true;
                Field::None
            }
            b"pipeline" if self.command == Command::Aggregate => Field::Inner(Scope::Pipeline),
            b"cursors" if self.command == Command::KillCursors => Field::Inner(Scope::Listed),
            _ => Field::None,
        }
    }

    /// Keeps a number found for `field`.
    pub(super) fn number(&mut self, field: RequestNumber, number: Number) {
        let fields = &mut self.fields;
        match field {
            RequestNumber::TxnNumber => fields.txn_number = Some(number.to_i64()),
            RequestNumber::StartTransaction => fields.starts_transaction = number.is_true(),
            RequestNumber::Autocommit => fields.in_transaction = !number.is_true(),
            RequestNumber::CursorId => fields.cursor_id = Some(number.to_i64()),
            RequestNumber::Tailable => self.is_tailable = number.is_true(),
            RequestNumber::AwaitData => fields.awaits_data = number.is_true(),
            RequestNumber::MaxAwaitTimeMs => fields.max_await_time_ms = Some(number.to_i64()),
        }
    }

    /// The fields once the body ended.
    pub(super) fn finish(&mut self) -> &RequestFields {
        self.fields.awaits_data &= self.is_tailable;
        &self.fields
    }
}
