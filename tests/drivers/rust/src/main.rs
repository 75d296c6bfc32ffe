//! The crate `mongodb` 3 behind the protocol of `tests/drivers/README.md`.

mod operations;
mod reference;

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bson::{Document, doc};
use futures_util::StreamExt;
use futures_util::future::join_all;
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ChangeStreamEvent;
use mongodb::options::{ClientOptions, CursorType};
use mongodb::{Client, Cursor};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;

use reference::Reference;

/// Failures that one `run` prints one by one; all of them are counted.
const FAILURES_PRINTED: u64 = 300;

type Answer = Result<Value, Box<dyn Error + Send + Sync>>;

/// Prints one line whole.
fn write(line: &Value) {
    let mut out = std::io::stdout().lock();
    // Whoever closed our output has no interest in it.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

enum OpenCursor {
    Watch(ChangeStream<ChangeStreamEvent<Document>>),
    Documents {
        cursor: Box<Cursor<Document>>,
        tailable: bool,
    },
}

#[derive(Default)]
struct Agent {
    clients: Mutex<HashMap<String, Vec<Client>>>,
    references: Mutex<HashMap<String, Vec<Arc<Reference>>>>,
    runs: Mutex<HashMap<u64, Arc<AtomicBool>>>,
    cursors: Mutex<HashMap<String, Arc<tokio::sync::Mutex<OpenCursor>>>>,
    held: Mutex<HashMap<String, JoinSet<()>>>,
}

fn text<'a>(request: &'a Value, field: &str) -> Result<&'a str, String> {
    request[field]
        .as_str()
        .ok_or_else(|| format!("{field} is missing"))
}

impl Agent {
    fn client(&self, request: &Value) -> Result<Client, String> {
        let name = text(request, "name")?;
        self.clients
            .lock()
            .unwrap()
            .get(name)
            .and_then(|clients| clients.last().cloned())
            .ok_or_else(|| format!("no client is called {name}"))
    }

    async fn open(&self, request: &Value) -> Answer {
        let name = text(request, "name")?;
        if request["options"]
            .as_object()
            .is_some_and(|options| !options.is_empty())
        {
            return Err("this driver takes its options from the URI".into());
        }
        let client = self.make(request).await?;
        self.clients
            .lock()
            .unwrap()
            .entry(name.into())
            .or_default()
            .push(client);
        Ok(json!({}))
    }

    /// Makes a client whose events are counted.
    async fn make(&self, request: &Value) -> Result<Client, Box<dyn Error + Send + Sync>> {
        let name = text(request, "name")?;
        let mut options = ClientOptions::parse(text(request, "uri")?).await?;
        let stream = request["events"].as_bool().unwrap_or(false);
        let reference = Arc::new(Reference::new(name, stream));
        reference.listen(&mut options);
        let client = Client::with_options(options)?;
        let mut references = self.references.lock().unwrap();
        references.entry(name.into()).or_default().push(reference);
        Ok(client)
    }

    async fn run(&self, request: &Value) -> Answer {
        let client = self.client(request)?;
        let name = text(request, "name")?.to_owned();
        let operation = text(request, "operation")?.to_owned();
        let args = request["args"].clone();
        let list = args["list"].as_bool().unwrap_or(false);
        let count = request["count"].as_u64().unwrap_or(1);
        let seconds = request["seconds"].as_f64().map(Duration::from_secs_f64);
        let pause = Duration::from_millis(request["pause"].as_u64().unwrap_or(0));
        let stopped = Arc::new(AtomicBool::new(false));
        let id = request["id"].as_u64().unwrap_or(0);
        self.runs.lock().unwrap().insert(id, stopped.clone());

        let begin = Instant::now();
        let started = Arc::new(AtomicU64::new(0));
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let mut workers = JoinSet::new();
        let concurrency = request["concurrency"].as_u64().unwrap_or(1);
        for _ in 0..concurrency {
            let (client, operation, args) = (client.clone(), operation.clone(), args.clone());
            let name = name.clone();
            let (stopped, started, outcome) = (stopped.clone(), started.clone(), outcome.clone());
            workers.spawn(async move {
                loop {
                    let over = match seconds {
                        Some(seconds) => begin.elapsed() >= seconds,
                        None => started.load(Ordering::SeqCst) >= count,
                    };
                    if over || stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let number = started.fetch_add(1, Ordering::SeqCst) + 1;
                    if seconds.is_none() && number > count {
                        return;
                    }
                    if !pause.is_zero() && number > concurrency {
                        tokio::time::sleep(pause).await;
                    }
                    let result = operations::perform(&client, &operation, &args, number).await;
                    let failed = outcome.lock().unwrap().add(result, list);
                    if let Some(error) = failed {
                        write(&json!({
                            "event": "operation_failed", "name": name, "at": now(), "error": error,
                        }));
                    }
                }
            });
        }
        while workers.join_next().await.is_some() {}
        self.runs.lock().unwrap().remove(&id);

        let outcome = std::mem::take(&mut *outcome.lock().unwrap());
        let mut answer = json!({
            "done": outcome.done,
            "failed": outcome.failed,
            "errors": outcome.errors,
            "seconds": begin.elapsed().as_secs_f64(),
            "result": outcome.result,
        });
        if list {
            answer["acknowledged"] = outcome.acknowledged.into();
        }
        Ok(answer)
    }

    fn stop(&self, request: &Value) -> Answer {
        let run = request["run"].as_u64().ok_or("run is missing")?;
        if let Some(stopped) = self.runs.lock().unwrap().get(&run) {
            stopped.store(true, Ordering::SeqCst);
        }
        Ok(json!({}))
    }

    async fn hold(&self, request: &Value) -> Answer {
        let name = text(request, "name")?;
        let client = self.client(request)?;
        let concurrency = request["concurrency"].as_u64().unwrap_or(1);
        let args = json!({
            "milliseconds": request["milliseconds"].as_u64().unwrap_or(600_000),
            "comment": hold_comment(),
        });
        let reference = self.references.lock().unwrap()[name]
            .last()
            .cloned()
            .ok_or("no such client")?;
        let wanted = reference.sleeping() + concurrency;
        let failure = Arc::new(Mutex::new(None));
        {
            let mut held = self.held.lock().unwrap();
            let held = held.entry(name.into()).or_default();
            for number in 0..concurrency {
                let (client, args, failure) = (client.clone(), args.clone(), failure.clone());
                held.spawn(async move {
                    let result = operations::perform(&client, "sleep", &args, number).await;
                    if let Err(error) = result {
                        *failure.lock().unwrap() = Some(error.to_string());
                    }
                });
            }
        }
        while reference.sleeping() < wanted {
            if let Some(failure) = failure.lock().unwrap().take() {
                return Err(failure.into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(json!({}))
    }

    async fn release(&self, request: &Value) -> Answer {
        let held = self.held.lock().unwrap().remove(text(request, "name")?);
        let mut held = held.unwrap_or_default();
        let count = held.len();
        if let Some(control) = request["control"].as_str() {
            let killer = Client::with_uri_str(control).await?;
            let admin = killer.database("admin");
            while !held.is_empty() {
                let query = doc! { "currentOp": true, "command.comment": hold_comment() };
                let reply = admin.run_command(query).await?;
                for operation in reply.get_array("inprog")? {
                    let operation = operation.as_document().ok_or("no document")?;
                    let opid = operation.get("opid").cloned().ok_or("no opid")?;
                    admin.run_command(doc! { "killOp": 1, "op": opid }).await?;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                while held.try_join_next().is_some() {}
            }
            killer.shutdown().await;
        }
        while held.join_next().await.is_some() {}
        Ok(json!({ "held": count }))
    }

    async fn cursor_open(&self, request: &Value) -> Answer {
        let args = &request["args"];
        let collection = operations::collection(&self.client(request)?, args);
        let wait = Duration::from_millis(200);
        let batch = u32::try_from(args["batch"].as_u64().unwrap_or(2))?;
        let opened = match text(request, "kind")? {
            "watch" => OpenCursor::Watch(collection.watch().max_await_time(wait).await?),
            "tailable" => OpenCursor::Documents {
                cursor: Box::new(
                    collection
                        .find(doc! {})
                        .cursor_type(CursorType::TailableAwait)
                        .max_await_time(wait)
                        .await?,
                ),
                tailable: true,
            },
            "find" => OpenCursor::Documents {
                cursor: Box::new(collection.find(doc! {}).batch_size(batch).await?),
                tailable: false,
            },
            other => return Err(format!("{other} is not supported by this driver").into()),
        };
        self.cursors.lock().unwrap().insert(
            text(request, "cursor")?.into(),
            Arc::new(tokio::sync::Mutex::new(opened)),
        );
        Ok(json!({}))
    }

    async fn cursor_next(&self, request: &Value) -> Answer {
        let name = text(request, "cursor")?;
        let opened = self.cursors.lock().unwrap().get(name).cloned();
        let opened = opened.ok_or_else(|| format!("no cursor is called {name}"))?;
        let mut opened = opened.lock().await;
        let wanted = request["count"].as_u64().unwrap_or(1);
        let wait = Duration::from_millis(request["milliseconds"].as_u64().unwrap_or(10_000));
        let deadline = Instant::now() + wait;
        let mut documents = 0;
        while documents < wanted && Instant::now() < deadline {
            let found = match &mut *opened {
                OpenCursor::Watch(stream) => stream.next_if_any().await?.is_some(),
                OpenCursor::Documents { cursor, tailable } => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    match tokio::time::timeout(left, cursor.next()).await {
                        Err(_) => break,
                        Ok(Some(found)) => found.map(|_| true)?,
                        Ok(None) if *tailable => false,
                        Ok(None) => break,
                    }
                }
            };
            documents += u64::from(found);
        }
        Ok(json!({ "documents": documents }))
    }

    fn cursor_close(&self, request: &Value) -> Answer {
        // Dropping a cursor makes the driver send killCursors.
        self.cursors
            .lock()
            .unwrap()
            .remove(text(request, "cursor")?)
            .ok_or("no such cursor")?;
        Ok(json!({}))
    }

    async fn per_request(&self, request: &Value) -> Answer {
        let operation = request["operation"].as_str().unwrap_or("find");
        for number in 0..request["count"].as_u64().unwrap_or(1) {
            self.open(request).await?;
            operations::perform(&self.client(request)?, operation, &request["args"], number)
                .await?;
            if request["close"] == true {
                self.close(request).await?;
            }
            let pause = request["pause"].as_u64().unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let name = text(request, "name")?;
        let clients = self.clients.lock().unwrap().get(name).map_or(0, Vec::len);
        Ok(json!({ "clients": clients }))
    }

    /// Workers of which each makes a client, uses it until that fails, and makes another at once.
    async fn hammer(&self, request: &Value) -> Answer {
        let name = text(request, "name")?;
        let stopped = Arc::new(AtomicBool::new(false));
        let id = request["id"].as_u64().unwrap_or(0);
        self.runs.lock().unwrap().insert(id, stopped.clone());
        let (clients, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let work = || async {
            while !stopped.load(Ordering::Relaxed) {
                clients.fetch_add(1, Ordering::Relaxed);
                let Err(error) = self.use_until_it_fails(request, &stopped).await else {
                    continue;
                };
                if failed.fetch_add(1, Ordering::Relaxed) < FAILURES_PRINTED {
                    write(&json!({
                        "event": "operation_failed", "name": name, "at": now(), "error": error.to_string(),
                    }));
                }
            }
        };
        let workers = request["concurrency"].as_u64().unwrap_or(1);
        join_all((0..workers).map(|_| work())).await;
        self.runs.lock().unwrap().remove(&id);
        Ok(json!({ "clients": clients.into_inner(), "failed": failed.into_inner() }))
    }

    async fn use_until_it_fails(
        &self,
        request: &Value,
        stopped: &AtomicBool,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let client = self.make(request).await?;
        let operation = request["operation"].as_str().unwrap_or("find");
        let pause = Duration::from_millis(request["pause"].as_u64().unwrap_or(0));
        let mut used = Ok(());
        for number in 0.. {
            if used.is_err() || stopped.load(Ordering::Relaxed) {
                break;
            }
            let performed = operations::perform(&client, operation, &request["args"], number).await;
            used = performed.map(|_| ());
            tokio::time::sleep(pause).await;
        }
        client.shutdown().immediate(true).await;
        used
    }

    async fn close(&self, request: &Value) -> Answer {
        // Unless forced, the driver waits until its cursors and sessions are gone.
        let force = request["force"].as_bool().unwrap_or(false);
        let clients = self.clients.lock().unwrap().remove(text(request, "name")?);
        for client in clients.unwrap_or_default() {
            client.shutdown().immediate(force).await;
        }
        Ok(json!({}))
    }

    fn stats(&self, request: &Value) -> Answer {
        let name = text(request, "name")?;
        let clients = self.clients.lock().unwrap().get(name).map_or(0, Vec::len);
        let references = self.references.lock().unwrap();
        Ok(reference::stats(
            references.get(name).map_or(&[][..], Vec::as_slice),
            clients,
        ))
    }

    async fn serve(&self, request: &Value) {
        let answer = match request["do"].as_str().unwrap_or_default() {
            "open" => self.open(request).await,
            "run" => self.run(request).await,
            "stop" => self.stop(request),
            "hold" => self.hold(request).await,
            "release" => self.release(request).await,
            "cursor_open" => self.cursor_open(request).await,
            "cursor_next" => self.cursor_next(request).await,
            "cursor_close" => self.cursor_close(request),
            "per_request" => self.per_request(request).await,
            "hammer" => self.hammer(request).await,
            "close" => self.close(request).await,
            "stats" => self.stats(request),
            "exit" => Ok(json!({})),
            other => Err(format!("nothing is called {other}").into()),
        };
        let mut line = match answer {
            Ok(mut answer) => {
                answer["ok"] = true.into();
                answer
            }
            Err(error) => json!({ "ok": false, "error": error.to_string() }),
        };
        line["id"] = request["id"].clone();
        write(&line);
    }
}

/// What the operations of one `run` came to.
#[derive(Default)]
struct Outcome {
    done: u64,
    failed: u64,
    errors: BTreeMap<String, u64>,
    acknowledged: Vec<String>,
    result: Option<Value>,
}

impl Outcome {
    /// The error, unless too many were returned already.
    fn add(&mut self, result: Answer, list: bool) -> Option<String> {
        match result {
            Ok(result) => {
                self.done += 1;
                if list && let Some(id) = result["_id"].as_str() {
                    self.acknowledged.push(id.into());
                }
                self.result = Some(result);
                None
            }
            Err(error) => {
                let message: String = error.to_string().chars().take(200).collect();
                *self.errors.entry(message.clone()).or_default() += 1;
                self.failed += 1;
                (self.failed <= FAILURES_PRINTED).then_some(message)
            }
        }
    }
}

/// Marks the operations that this process holds, so that it ends no other's.
fn hold_comment() -> String {
    format!("poolscope-hold-{}", std::process::id())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let agent = Arc::new(Agent::default());
    write(&json!({
        "event": "started", "driver": "mongodb-rust", "version": "3.9.1", "pid": std::process::id(),
    }));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Value = serde_json::from_str(&line)?;
        if request["do"] == "exit" {
            agent.serve(&request).await;
            break;
        }
        let agent = agent.clone();
        tokio::spawn(async move { agent.serve(&request).await });
    }
    // Without the driver's own goodbyes, as an application that is stopped.
    std::process::exit(0);
}
