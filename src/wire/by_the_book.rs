//! What the walk finds while bytes pass by is what a reader of the whole document finds.
//!
//! The reader here has all the time in the world: it goes by what `bson` makes of a document, one key after the other;
//! of several with one name the last counts.

use bson::raw::{RawBsonRef, RawDocument, RawElement};
use bson::spec::BinarySubtype;
use proptest::prelude::*;

use super::field::Number;
use super::properties::doc;
use super::samples::{msg, reply_of, request_of};
use super::{CodeName, Command, ReplyFields, RequestFields, TopologyVersion};

fn elements(document: &RawDocument) -> impl Iterator<Item = (&str, RawElement<'_>)> {
    let elements = document.iter_elements().map(Result::unwrap);
    elements.map(|element| (element.key().as_str(), element))
}

/// What a server takes for a number.
fn number(element: &RawElement<'_>) -> Option<Number> {
    let value = element.value().ok()?;
    let timestamp = || {
        let timestamp = value.as_timestamp()?;
        let bits = u64::from(timestamp.time) << 32 | u64::from(timestamp.increment);
        Some(bits.cast_signed())
    };
    let integer = value.as_i64();
    let integer = integer.or_else(|| value.as_i32().map(i64::from));
    let integer = integer.or_else(|| value.as_bool().map(i64::from));
    let integer = integer.or_else(|| value.as_datetime().map(bson::DateTime::timestamp_millis));
    let integer = integer.or_else(timestamp).map(Number::Int);
    integer.or_else(|| value.as_f64().map(Number::Double))
}

fn integer(element: &RawElement<'_>) -> Option<i64> {
    number(element).map(Number::to_i64)
}

fn embedded<'a>(element: &RawElement<'a>) -> Option<&'a RawDocument> {
    element.value().ok()?.as_document()
}

fn items<'a>(element: &RawElement<'a>) -> Option<Vec<RawElement<'a>>> {
    let array = element.value().ok()?.as_array()?;
    Some(array.iter_elements().map(Result::unwrap).collect())
}

fn text<'a>(element: &RawElement<'a>) -> Option<&'a str> {
    element.value().ok()?.as_str()
}

fn session_of(lsid: &RawDocument) -> Option<[u8; 16]> {
    let ids = elements(lsid).filter(|(key, _)| *key == "id");
    let ids = ids.filter_map(|(_, id)| {
        let id = id.value().ok()?.as_binary()?;
        let is_session = id.subtype == BinarySubtype::Uuid;
        is_session.then_some(id.bytes.try_into().ok())?
    });
    ids.last()
}

/// The command that `body` is, and what stands at its top level.
fn request(body: &RawDocument) -> (Command, RequestFields) {
    let mut fields = RequestFields::default();
    let mut is_tailable = false;
    let command = read_request(body, false, &mut fields, &mut is_tailable);
    fields.awaits_data &= is_tailable;
    (command, fields)
}

fn read_request(
    body: &RawDocument,
    is_wrapped: bool,
    fields: &mut RequestFields,
    is_tailable: &mut bool,
) -> Command {
    let mut command = Command::Other;
    for (position, (key, element)) in elements(body).enumerate() {
        if position == 0 {
            if key == "$query" {
                if let Some(inner) = embedded(&element).filter(|_| !is_wrapped) {
                    command = read_request(inner, true, fields, is_tailable);
                }
                continue;
            }
            command = Command::from_wire(key.as_bytes());
            if command == Command::GetMore {
                fields.cursor_id = integer(&element);
            } else if command == Command::EndSessions {
                count(&element, fields);
            }
            continue;
        }
        let is_true = number(&element).map(Number::is_true);
        match key {
            "lsid" => {
                let id = embedded(&element).and_then(session_of);
                fields.lsid = id.or(fields.lsid);
            }
            "txnNumber" => fields.txn_number = integer(&element).or(fields.txn_number),
            "startTransaction" => {
                fields.starts_transaction = is_true.unwrap_or(fields.starts_transaction);
            }
            "autocommit" => {
                let is_in_transaction = is_true.map(|is_true| !is_true);
                fields.in_transaction = is_in_transaction.unwrap_or(fields.in_transaction);
            }
            "tailable" => *is_tailable = is_true.unwrap_or(*is_tailable),
            "awaitData" => fields.awaits_data = is_true.unwrap_or(fields.awaits_data),
            "maxAwaitTimeMS" => {
                fields.max_await_time_ms = integer(&element).or(fields.max_await_time_ms);
            }
            "maxTimeMS" => fields.has_max_time = true,
            "topologyVersion" => fields.has_topology_version = true,
            "pipeline" if command == Command::Aggregate => {
                let stages = items(&element).unwrap_or_default();
                let first = stages.first().and_then(embedded);
                let name = first.and_then(|stage| elements(stage).next());
                fields.is_change_stream |= name.is_some_and(|(name, _)| name == "$changeStream");
            }
            "cursors" if command == Command::KillCursors => count(&element, fields),
            _ => {}
        }
    }
    command
}

fn count(list: &RawElement<'_>, fields: &mut RequestFields) {
    let listed = items(list).unwrap_or_default().len();
    fields.listed_count += u32::try_from(listed).unwrap();
}

/// What stands at the top level of a reply.
fn reply(body: &RawDocument) -> ReplyFields {
    let mut fields = ReplyFields::default();
    let (mut process_id, mut counter) = (None, None);
    let code = |element: &RawElement<'_>| number(element).map(Number::to_i32);
    for (key, element) in elements(body) {
        match key {
            "ok" => fields.ok = number(&element).map(Number::is_true).or(fields.ok),
            "code" => fields.code = code(&element).unwrap_or(fields.code),
            "codeName" => {
                let name = text(&element).map(|name| CodeName::from_wire(name.as_bytes()));
                fields.code_name = name.or(fields.code_name);
            }
            "errorLabels" => {
                for label in items(&element).iter().flatten().filter_map(text) {
                    fields.error_labels.insert(label.as_bytes());
                }
            }
            "cursor" => {
                for (key, element) in embedded(&element).into_iter().flat_map(elements) {
                    match key {
                        "id" => fields.cursor_id = integer(&element).or(fields.cursor_id),
                        "firstBatch" | "nextBatch" => {
                            let is_empty = items(&element).map(|batch| batch.is_empty());
                            fields.batch_is_empty = is_empty.or(fields.batch_is_empty);
                        }
                        _ => {}
                    }
                }
            }
            "writeErrors" => {
                let errors = items(&element).unwrap_or_default();
                let errors = errors.iter().filter_map(embedded).flat_map(elements);
                let codes = errors.filter(|(key, _)| *key == "code");
                for code in codes.filter_map(|(_, element)| code(&element).flatten()) {
                    fields.write_errors.add(code);
                }
            }
            "writeConcernError" => {
                for (key, element) in embedded(&element).into_iter().flat_map(elements) {
                    if key == "code" {
                        let code = code(&element);
                        fields.write_concern_error = code.unwrap_or(fields.write_concern_error);
                    }
                }
            }
            "remainingQuiesceTimeMillis" => {
                fields.remaining_quiesce_ms = integer(&element).or(fields.remaining_quiesce_ms);
            }
            "topologyVersion" => {
                for (key, element) in embedded(&element).into_iter().flat_map(elements) {
                    match key {
                        "processId" => {
                            let id = element.value();
                            let id = id.ok().and_then(RawBsonRef::as_object_id);
                            process_id = id.map(|id| id.bytes()).or(process_id);
                        }
                        "counter" => counter = integer(&element).or(counter),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if let (Some(process_id), Some(counter)) = (process_id, counter) {
        fields.topology_version = Some(TopologyVersion {
            process_id,
            counter,
        });
    }
    fields
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_walk_finds_what_a_reader_of_the_whole_document_finds(document in doc()) {
        let bytes = document.clone().build();
        let body = RawDocument::from_bytes(&bytes).unwrap();
        let message = msg(document);
        prop_assert_eq!(request_of(&message), request(body));
        prop_assert_eq!(reply_of(&message), reply(body));
    }
}
