//! The operations that a `run` repeats.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc,
};
use futures_util::StreamExt;
use mongodb::options::WriteConcern;
use mongodb::{Client, Collection};
use serde_json::{Value, json};

use crate::Answer;

/// The collection that the arguments name.
pub fn collection(client: &Client, args: &Value) -> Collection<Document> {
    client
        .database(args["database"].as_str().unwrap_or("poolscope"))
        .collection(args["collection"].as_str().unwrap_or("items"))
}

/// Does one operation, the `number`th of its run.
pub async fn perform(client: &Client, operation: &str, args: &Value, number: u64) -> Answer {
    let collection = collection(client, args);
    let admin = client.database("admin");
    match operation {
        "ping" => {
            admin.run_command(doc! { "ping": 1 }).await?;
            Ok(json!({}))
        }
        "insert" => {
            let made = document(args, number)?;
            let id = made.get("_id").cloned().ok_or("no _id")?;
            collection.insert_one(made).await?;
            let id = match id {
                Bson::ObjectId(id) => id.to_hex(),
                other => other.as_str().ok_or("no text")?.to_owned(),
            };
            Ok(json!({ "inserted": 1, "_id": id }))
        }
        "insert_w0" => {
            let unacknowledged = WriteConcern::builder()
                .w(mongodb::options::Acknowledgment::Nodes(0))
                .build();
            let made = document(args, number)?;
            collection
                .insert_one(made)
                .write_concern(unacknowledged)
                .await?;
            Ok(json!({}))
        }
        "insert_many" => {
            let padding = json!({ "bytes": args["bytes"] });
            let many: Result<Vec<_>, _> = (0..args["documents"].as_u64().unwrap_or(3))
                .map(|index| document(&padding, index))
                .collect();
            let inserted = collection.insert_many(many?).await?.inserted_ids.len();
            Ok(json!({ "inserted": inserted }))
        }
        "find" => find(&collection, args).await,
        "bulk" => bulk(&collection, args, number).await,
        "aggregate" => {
            let n = doc! { "$mod": [{ "$ifNull": ["$n", 0] }, 7] };
            let groups = collection
                .aggregate([doc! { "$group": { "_id": n } }])
                .await?;
            Ok(json!({ "groups": groups.count().await }))
        }
        "crud" => crud(&collection, number).await,
        "types" => types(&collection).await,
        "transaction" => transaction(client, &collection, number).await,
        "sleep" => {
            let millis = args["milliseconds"].as_i64().unwrap_or(1000);
            let mut command = doc! { "sleep": 1, "millis": millis, "lock": "none" };
            if let Some(comment) = args["comment"].as_str() {
                command.insert("comment", comment);
            }
            admin.run_command(command).await?;
            Ok(json!({}))
        }
        "drop" => {
            collection.drop().await?;
            Ok(json!({}))
        }
        "create_capped" => {
            collection.drop().await?;
            client
                .database(&collection.namespace().db)
                .create_collection(collection.name())
                .capped(true)
                .size(1 << 20)
                .await?;
            collection.insert_one(doc! { "first": true }).await?;
            Ok(json!({}))
        }
        "command" => {
            let command: Document = serde_json::from_value(args["command"].clone())?;
            let database = client.database(args["on"].as_str().unwrap_or("admin"));
            let reply = database.run_command(command).await?;
            Ok(serde_json::to_value(reply)?)
        }
        other => Err(format!("{other} is not supported by this driver").into()),
    }
}

fn document(args: &Value, number: u64) -> Result<Document, std::num::TryFromIntError> {
    let mut made = match args["prefix"].as_str() {
        Some(prefix) => doc! { "_id": format!("{prefix}-{number}") },
        None => doc! { "_id": ObjectId::new() },
    };
    made.insert("n", i64::try_from(number)?);
    made.insert("from", "rust");
    if let Some(bytes) = args["bytes"].as_u64() {
        made.insert("padding", "x".repeat(usize::try_from(bytes)?));
    }
    Ok(made)
}

async fn find(collection: &Collection<Document>, args: &Value) -> Answer {
    let mut find = collection.find(doc! {});
    if let Some(limit) = args["limit"].as_i64() {
        find = find.limit(limit);
    }
    if let Some(batch) = args["batch"].as_u64() {
        find = find.batch_size(u32::try_from(batch)?);
    }
    let mut cursor = find.await?;
    let (mut documents, mut bytes) = (0_u64, 0_usize);
    while let Some(found) = cursor.next().await {
        documents += 1;
        bytes += found?.get_str("padding").map_or(0, str::len);
    }
    Ok(json!({ "documents": documents, "bytes": bytes }))
}

/// The driver offers bulk writes only for server 8, so this is what applications write by hand.
async fn bulk(collection: &Collection<Document>, args: &Value, number: u64) -> Answer {
    let number = i64::try_from(number)?;
    let documents = args["documents"].as_i64().unwrap_or(100);
    let many = (0..documents).map(|index| doc! { "bulk": number, "n": index });
    let inserted = collection.insert_many(many).await?.inserted_ids.len();
    let seen = doc! { "$set": { "seen": true } };
    let updated = collection
        .update_many(doc! { "bulk": number }, seen)
        .await?;
    let deleted = collection.delete_many(doc! { "bulk": number }).await?;
    Ok(json!({
        "inserted": inserted, "updated": updated.modified_count, "deleted": deleted.deleted_count,
    }))
}

fn check(condition: bool, what: &str) -> Result<(), String> {
    if condition {
        Ok(())
    } else {
        Err(format!("unexpected answer of {what}"))
    }
}

async fn crud(collection: &Collection<Document>, number: u64) -> Answer {
    let n = i64::try_from(number)?;
    let id = ObjectId::new();
    let mine = doc! { "_id": id };
    let made = doc! { "_id": id, "n": n };
    let inserted = collection.insert_one(&made).await?;
    check(inserted.inserted_id == Bson::ObjectId(id), "insert")?;
    check(
        collection.find_one(mine.clone()).await? == Some(made),
        "find",
    )?;
    let increment = doc! { "$inc": { "n": 1_i64 } };
    let updated = collection.update_one(mine.clone(), increment).await?;
    check(updated.modified_count == 1, "update")?;
    let before = collection
        .find_one_and_replace(mine.clone(), doc! { "n": -1 })
        .await?;
    check(before == Some(doc! { "_id": id, "n": n + 1 }), "replace")?;
    let replaced = doc! { "_id": id, "n": -1 };
    check(collection.count_documents(replaced).await? == 1, "count")?;
    check(
        collection.delete_one(mine.clone()).await?.deleted_count == 1,
        "delete",
    )?;
    check(collection.find_one(mine).await?.is_none(), "the last find")?;
    Ok(json!({ "checked": 7 }))
}

async fn types(collection: &Collection<Document>) -> Answer {
    let values = doc! {
        "double": 1.5,
        "string": "text with \u{e9} and \u{4e2d}",
        "document": { "a": { "b": 1 } },
        "array": [1, "two", Bson::Null],
        "binary": Binary { subtype: BinarySubtype::UserDefined(128), bytes: (0..=255).collect() },
        "undefined": Bson::Undefined,
        "object_id": ObjectId::new(),
        "boolean": true,
        "date": DateTime::from_millis(1_582_979_415_123),
        "null": Bson::Null,
        "regex": Regex { pattern: "^a.*b$".try_into()?, options: "ix".try_into()? },
        "code": Bson::JavaScriptCode("function() { return 1; }".into()),
        "symbol": Bson::Symbol("symbol".into()),
        "code_with_scope": JavaScriptCodeWithScope {
            code: "function() { return x; }".into(),
            scope: doc! { "x": 1 },
        },
        "int32": 7_i32,
        "timestamp": Timestamp { time: 1_600_000_000, increment: 2 },
        "int64": 1_i64 << 40,
        "decimal": "1.5E+10".parse::<Decimal128>()?,
        "min_key": Bson::MinKey,
        "max_key": Bson::MaxKey,
    };
    let id = collection.insert_one(&values).await?.inserted_id;
    let found = collection.find_one(doc! { "_id": id.clone() }).await?;
    collection.delete_one(doc! { "_id": id }).await?;
    let mut found = found.ok_or("the document is not there")?;
    found.remove("_id");
    Ok(json!({ "equal": found == values, "types": values.len() }))
}

async fn transaction(client: &Client, collection: &Collection<Document>, number: u64) -> Answer {
    let number = i64::try_from(number)?;
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    for n in 1..=2 {
        let made = doc! { "transaction": number, "n": n };
        collection.insert_one(made).session(&mut session).await?;
    }
    session.commit_transaction().await?;
    Ok(json!({ "committed": true }))
}
