//! Names of server error codes: a closed set, so that a code may become a label of a metric.
//!
//! The name is looked up here rather than taken from the reply: code and name are one to one, and old servers
//! and write errors send no name. A code that is not listed becomes `other`.
//!
//! Source: the server's own table of error codes (`error_codes.yml`, servers 3.6 to 8.2), the part of it that
//! clients meet.

/// Labels of a code that is not in the table.
const UNLISTED: (&str, &str) = ("other", "unknown");

/// The `code` and `code_name` of an error code as labels; `other` and `unknown` for one that is not listed.
pub fn error_code_labels(code: i32) -> (&'static str, &'static str) {
    CODES
        .binary_search_by_key(&code, |(known, _, _)| *known)
        .ok()
        .and_then(|position| CODES.get(position))
        .map_or(UNLISTED, |(_, label, name)| (*label, *name))
}

/// Whether an error with this code says something of the state of the server, its peers or the client's credentials,
/// so that a driver may answer it by closing connections, checking the server anew or trying again.
///
/// Sources: Server Discovery And Monitoring § Error handling; Retryable Reads § Retryable Error; Authentication §
/// Reauthentication.
pub const fn matters_to_pools(code: i32) -> bool {
    is_about_the_server(code) || matches!(code, 11 | 18 | 134 | 251 | 391 | 8000)
}

/// Whether a server that answers with this code speaks of itself, its role or its network, and not of what it was asked:
/// nothing is decided about credentials, for example.
///
/// Source: Server Discovery And Monitoring § Error handling; the categories of the server's table of error codes.
pub const fn is_about_the_server(code: i32) -> bool {
    matches!(
        code,
        6 | 7
            | 50
            | 89
            | 91
            | 189
            | 202
            | 262
            | 462
            | 9001
            | 10058
            | 10107
            | 11600
            | 11602
            | 13435
            | 13436
    )
}

/// Code, its label and its name; sorted by code. Code 0 stands for a reply without one.
static CODES: &[(i32, &str, &str)] = &[
    (0, "0", "none"),
    (1, "1", "InternalError"),
    (2, "2", "BadValue"),
    (4, "4", "NoSuchKey"),
    (6, "6", "HostUnreachable"),
    (7, "7", "HostNotFound"),
    (8, "8", "UnknownError"),
    (9, "9", "FailedToParse"),
    (11, "11", "UserNotFound"),
    (13, "13", "Unauthorized"),
    (14, "14", "TypeMismatch"),
    (15, "15", "Overflow"),
    (16, "16", "InvalidLength"),
    (17, "17", "ProtocolError"),
    (18, "18", "AuthenticationFailed"),
    (20, "20", "IllegalOperation"),
    (22, "22", "InvalidBSON"),
    (24, "24", "LockTimeout"),
    (26, "26", "NamespaceNotFound"),
    (27, "27", "IndexNotFound"),
    (28, "28", "PathNotViable"),
    (31, "31", "RoleNotFound"),
    (40, "40", "ConflictingUpdateOperators"),
    (43, "43", "CursorNotFound"),
    (46, "46", "LockBusy"),
    (47, "47", "NoMatchingDocument"),
    (48, "48", "NamespaceExists"),
    (50, "50", "MaxTimeMSExpired"),
    (51, "51", "ManualInterventionRequired"),
    (52, "52", "DollarPrefixedFieldName"),
    (53, "53", "InvalidIdField"),
    (56, "56", "EmptyFieldName"),
    (57, "57", "DottedFieldName"),
    (59, "59", "CommandNotFound"),
    (61, "61", "ShardKeyNotFound"),
    (63, "63", "StaleShardVersion"),
    (64, "64", "WriteConcernFailed"),
    (65, "65", "MultipleErrorsOccurred"),
    (66, "66", "ImmutableField"),
    (67, "67", "CannotCreateIndex"),
    (68, "68", "IndexAlreadyExists"),
    (70, "70", "ShardNotFound"),
    (71, "71", "ReplicaSetNotFound"),
    (72, "72", "InvalidOptions"),
    (73, "73", "InvalidNamespace"),
    (74, "74", "NodeNotFound"),
    (76, "76", "NoReplicationEnabled"),
    (79, "79", "UnknownReplWriteConcern"),
    (82, "82", "NoProgressMade"),
    (85, "85", "IndexOptionsConflict"),
    (86, "86", "IndexKeySpecsConflict"),
    (89, "89", "NetworkTimeout"),
    (90, "90", "CallbackCanceled"),
    (91, "91", "ShutdownInProgress"),
    (93, "93", "InvalidReplicaSetConfig"),
    (94, "94", "NotYetInitialized"),
    (95, "95", "NotSecondary"),
    (96, "96", "OperationFailed"),
    (100, "100", "UnsatisfiableWriteConcern"),
    (103, "103", "NewReplicaSetConfigurationIncompatible"),
    (107, "107", "LockFailed"),
    (109, "109", "ConfigurationInProgress"),
    (112, "112", "WriteConflict"),
    (115, "115", "CommandNotSupported"),
    (117, "117", "ConflictingOperationInProgress"),
    (118, "118", "NamespaceNotSharded"),
    (121, "121", "DocumentValidationFailure"),
    (123, "123", "NotAReplicaSet"),
    (125, "125", "CommandFailed"),
    (133, "133", "FailedToSatisfyReadPreference"),
    (134, "134", "ReadConcernMajorityNotAvailableYet"),
    (136, "136", "CappedPositionLost"),
    (143, "143", "CursorInUse"),
    (145, "145", "PooledConnectionsDropped"),
    (146, "146", "ExceededMemoryLimit"),
    (148, "148", "ReadConcernMajorityNotEnabled"),
    (150, "150", "StaleEpoch"),
    (160, "160", "MaxStalenessOutOfRange"),
    (165, "165", "ViewDepthLimitExceeded"),
    (166, "166", "CommandNotSupportedOnView"),
    (168, "168", "InvalidPipelineOperator"),
    (175, "175", "QueryPlanKilled"),
    (183, "183", "ClientMetadataMissingField"),
    (184, "184", "ClientMetadataAppNameTooLarge"),
    (185, "185", "ClientMetadataDocumentTooLarge"),
    (186, "186", "ClientMetadataCannotBeMutated"),
    (187, "187", "LinearizableReadConcernError"),
    (189, "189", "PrimarySteppedDown"),
    (202, "202", "NetworkInterfaceExceededTimeLimit"),
    (206, "206", "NoSuchSession"),
    (211, "211", "KeyNotFound"),
    (213, "213", "DuplicateSession"),
    (214, "214", "AuthenticationRestrictionUnmet"),
    (215, "215", "DatabaseDropPending"),
    (216, "216", "ElectionInProgress"),
    (217, "217", "IncompleteTransactionHistory"),
    (222, "222", "CloseChangeStream"),
    (224, "224", "QueryFeatureNotAllowed"),
    (225, "225", "TransactionTooOld"),
    (226, "226", "AtomicityFailure"),
    (233, "233", "TooManyDocumentSequences"),
    (234, "234", "RetryChangeStream"),
    (235, "235", "InternalErrorNotSupported"),
    (237, "237", "CursorKilled"),
    (238, "238", "NotImplemented"),
    (239, "239", "SnapshotTooOld"),
    (241, "241", "ConversionFailure"),
    (246, "246", "SnapshotUnavailable"),
    (249, "249", "StaleDbVersion"),
    (250, "250", "StaleChunkHistory"),
    (251, "251", "NoSuchTransaction"),
    (256, "256", "TransactionCommitted"),
    (257, "257", "TransactionTooLarge"),
    (260, "260", "InvalidResumeToken"),
    (261, "261", "TooManyLogicalSessions"),
    (262, "262", "ExceededTimeLimit"),
    (263, "263", "OperationNotSupportedInTransaction"),
    (264, "264", "TooManyFilesOpen"),
    (267, "267", "PreparedTransactionInProgress"),
    (272, "272", "MigrationConflict"),
    (276, "276", "IndexBuildAborted"),
    (279, "279", "ClientDisconnect"),
    (280, "280", "ChangeStreamFatalError"),
    (286, "286", "ChangeStreamHistoryLost"),
    (290, "290", "TransactionExceededLifetimeLimitSeconds"),
    (292, "292", "QueryExceededMemoryLimitNoDiskUseAllowed"),
    (322, "322", "APIVersionError"),
    (323, "323", "APIStrictError"),
    (324, "324", "APIDeprecationError"),
    (352, "352", "UnsupportedOpQueryCommand"),
    (365, "365", "TemporarilyUnavailable"),
    (391, "391", "ReauthenticationRequired"),
    (462, "462", "IngressRequestRateLimitExceeded"),
    (8000, "8000", "AtlasError"),
    (9001, "9001", "SocketException"),
    (10003, "10003", "CannotGrowDocumentInCappedNamespace"),
    (10058, "10058", "LegacyNotPrimary"),
    (10107, "10107", "NotWritablePrimary"),
    (10334, "10334", "BSONObjectTooLarge"),
    (11000, "11000", "DuplicateKey"),
    (11600, "11600", "InterruptedAtShutdown"),
    (11601, "11601", "Interrupted"),
    (11602, "11602", "InterruptedDueToReplStateChange"),
    (12586, "12586", "BackgroundOperationInProgressForDatabase"),
    (12587, "12587", "BackgroundOperationInProgressForNamespace"),
    (13113, "13113", "MergeStageNoMatchingDocument"),
    (13297, "13297", "DatabaseDifferCase"),
    (13388, "13388", "StaleConfig"),
    (13435, "13435", "NotPrimaryNoSecondaryOk"),
    (13436, "13436", "NotPrimaryOrSecondary"),
    (14031, "14031", "OutOfDiskSpace"),
    (17280, "17280", "KeyTooLong"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_one_to_one_and_sorted() {
        assert!(CODES.is_sorted_by(|a, b| a.0 < b.0));
        let mut names: Vec<_> = CODES.iter().map(|(_, _, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CODES.len());
        for (code, label, name) in CODES {
            assert_eq!(code.to_string(), *label);
            assert_eq!(error_code_labels(*code), (*label, *name));
        }
    }

    #[test]
    fn codes_that_pools_react_to_are_listed() {
        assert_eq!(error_code_labels(11_000), ("11000", "DuplicateKey"));
        assert_eq!(error_code_labels(10_107), ("10107", "NotWritablePrimary"));
        assert_eq!(error_code_labels(91), ("91", "ShutdownInProgress"));
        assert_eq!(error_code_labels(5_739_101), ("other", "unknown"));
        assert_eq!(error_code_labels(i32::MIN), ("other", "unknown"));
    }
}
