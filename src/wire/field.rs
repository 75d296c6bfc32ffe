//! What the walk goes down into, what it looks for there, and the numbers it finds.

/// A document or array whose elements are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The body of a command or a reply.
    Body,
    /// A document of which only the structure is checked.
    Plain,
    /// `lsid` of a request.
    Lsid,
    /// An array whose elements are counted.
    Listed,
    /// `pipeline` of an `aggregate`.
    Pipeline,
    /// The first stage of a pipeline.
    PipelineStage,
    /// `cursor` of a reply.
    Cursor,
    /// `errorLabels` of a reply.
    ErrorLabels,
    /// `writeErrors` of a reply.
    WriteErrors,
    /// One element of `writeErrors`.
    WriteError,
    /// `writeConcernError` of a reply.
    WriteConcernError,
    /// `topologyVersion` of a reply.
    TopologyVersion,
}

impl Scope {
    /// Whether it is an array, and a document otherwise.
    pub(super) const fn is_array(self) -> bool {
        match self {
            Self::Listed | Self::Pipeline | Self::ErrorLabels | Self::WriteErrors => true,
            Self::Body
            | Self::Plain
            | Self::Lsid
            | Self::PipelineStage
            | Self::Cursor
            | Self::WriteError
            | Self::WriteConcernError
            | Self::TopologyVersion => false,
        }
    }
}

/// An element whose value is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Of no interest: skipped.
    None,
    /// The document itself.
    Root,
    /// `$query`: the command in its wrapper.
    Wrapped,
    /// A document or array to go down into.
    Inner(Scope),
    /// `lsid.id`.
    SessionId,
    /// `topologyVersion.processId` of a reply.
    ProcessId,
    /// `cursor.firstBatch` or `cursor.nextBatch`.
    Batch,
    /// A number in a request.
    Request(RequestNumber),
    /// A number in a reply.
    Reply(ReplyNumber),
    /// A string in a reply.
    Text(ReplyText),
}

/// Numbers looked for in requests, by their names there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestNumber {
    TxnNumber,
    StartTransaction,
    Autocommit,
    /// The value of the first key of a `getMore`.
    CursorId,
    Tailable,
    AwaitData,
    MaxAwaitTimeMs,
}

/// Numbers looked for in replies, by their names there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyNumber {
    Ok,
    Code,
    /// `cursor.id`.
    CursorId,
    /// `code` of an element of `writeErrors`.
    WriteErrorCode,
    /// `writeConcernError.code`.
    WriteConcernErrorCode,
    RemainingQuiesceMs,
    /// `topologyVersion.counter`.
    Counter,
}

/// Strings looked for in replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyText {
    CodeName,
    /// An element of `errorLabels`.
    ErrorLabel,
}

/// A value that counts as a number for a server, which is lenient about the types of options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    /// Not zero, which is how servers read options that are meant to be booleans.
    pub(super) fn is_true(self) -> bool {
        match self {
            Self::Int(value) => value != 0,
            Self::Double(value) => value != 0.0,
        }
    }

    /// The integer part, held to the range of an int64.
    pub(super) fn to_i64(self) -> i64 {
        match self {
            Self::Int(value) => value,
            Self::Double(value) => {
                #[cfg_attr(
                    not(test),
                    expect(
                        clippy::as_conversions,
                        reason = "the cast saturates, and std has no other"
                    )
                )]
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the fraction is not wanted"
                )]
                let integer = value as i64;
                integer
            }
        }
    }

    /// The integer part, when it is an int32.
    pub(super) fn to_i32(self) -> Option<i32> {
        i32::try_from(self.to_i64()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_count_as_numbers_and_saturate() {
        assert_eq!(Number::Double(11600.0).to_i32(), Some(11600));
        assert_eq!(Number::Double(1e300).to_i64(), i64::MAX);
        assert_eq!(Number::Double(1e300).to_i32(), None);
        assert_eq!(Number::Double(f64::NAN).to_i64(), 0);
        assert!(Number::Double(1.0).is_true());
        assert!(!Number::Double(-0.0).is_true());
    }
}
