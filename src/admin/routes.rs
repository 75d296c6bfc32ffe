//! Paths and what they answer.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::api::{self, Refusal};
use super::events::SUBSCRIBERS_MAX;
use super::filter::Filter;
use super::incidents::{self, IncidentFilter};
use super::{Source, StatusFacts, convert};
use crate::diagnose::Incident;

/// Longest path with query, in bytes: the longest names fit several times.
const URI_LEN_MAX: usize = 2048;
/// Pictures taken at the same time; more would only take the cores of the forwarding threads.
const PICTURES_MAX: usize = 2;

/// Numbers a refusal names.
const INCIDENTS_NAMED_MAX: usize = 20;

const INDEX: &str = "\
poolscope

/metrics              metrics, Prometheus text format
/-/healthy            200 while the process runs
/-/ready              200 while new connections are taken, 503 otherwise
/api/v1/clients       who holds which connections; ?client= ?upstream=
/api/v1/connections   open connections; ?client= ?state= ?role= ?upstream= ?limit=
/api/v1/upstreams     the servers behind the listeners
/api/v1/incidents     what went wrong and why; ?id= ?open= ?severity= ?cause= ?client= ?upstream= ?since= ?limit=
/api/v1/incidents/1   one of them
/api/v1/events        news of incidents as they come, server-sent events
/api/v1/status        version, listeners, limits, warnings
";

struct Shown {
    source: Arc<dyn Source>,
    slots: Arc<Semaphore>,
    /// Ends streams.
    stop: CancellationToken,
}

type Shared = State<Arc<Shown>>;
type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

pub(super) fn router(source: Arc<dyn Source>, stop: CancellationToken) -> Router {
    let shown = Arc::new(Shown {
        source,
        slots: Arc::new(Semaphore::new(PICTURES_MAX)),
        stop,
    });
    Router::new()
        .route("/", get(INDEX))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get("healthy\n"))
        .route("/-/ready", get(ready))
        .route("/api/v1/clients", get(clients))
        .route("/api/v1/connections", get(connections))
        .route("/api/v1/upstreams", get(upstreams))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/incidents/{id}", get(incident))
        .route("/api/v1/events", get(events))
        .route("/api/v1/status", get(status))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn(guard))
        .with_state(shown)
}

impl Shown {
    /// Runs `take` on a thread that may block, a few at a time: a picture costs milliseconds, which no forwarding
    /// thread should lose. The slot goes with the work, so a client that hangs up does not free it early.
    async fn take<T: Send + 'static>(
        &self,
        take: impl FnOnce(&dyn Source) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| Failure::internal("the server is ending"))?;
        let source = Arc::clone(&self.source);
        tokio::task::spawn_blocking(move || {
            let _slot = slot;
            take(source.as_ref())
        })
        .await
        .map_err(|_| Failure::internal("the picture could not be taken"))
    }
}

/// A request that gets no answer but a reason.
struct Failure {
    status: StatusCode,
    refusal: Refusal,
}

impl Failure {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            refusal: Refusal {
                error: error.into(),
                allowed: Vec::new(),
            },
        }
    }

    fn internal(error: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            refusal,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.refusal)).into_response()
    }
}

async fn metrics(State(shown): Shared) -> Result<Response, Failure> {
    let text = shown.take(Source::exposition).await?;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn ready(State(shown): Shared) -> Response {
    if shown.source.is_ready() {
        return "ready\n".into_response();
    }
    let reason = if shown.source.status().is_draining {
        "draining\n"
    } else {
        "starting\n"
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

async fn clients(State(shown): Shared, pairs: Parameters) -> Result<Response, Failure> {
    let filter = filter(&shown, pairs, &["client", "upstream"])?;
    shown
        .take(move |source| {
            // It may take a moment to come: taken first, so that the snapshot is no older.
            let picture = source.pool_picture();
            let snapshot = source.snapshot(false);
            let mut answer = convert::clients(&snapshot, &source.status(), &picture);
            answer.clients.retain(|row| filter.has_client(row));
            to_json(&answer)
        })
        .await?
}

async fn connections(State(shown): Shared, pairs: Parameters) -> Result<Response, Failure> {
    let known = ["client", "state", "role", "upstream", "limit"];
    let filter = filter(&shown, pairs, &known)?;
    shown
        .take(move |source| {
            let snapshot = source.snapshot(true);
            let matching = || {
                let rows = snapshot.connections.iter();
                rows.filter(|row| filter.has_connection(row))
            };
            to_json(&api::Connections {
                api_version: api::API_VERSION.to_owned(),
                at: snapshot.at.to_string(),
                matched: u64::try_from(matching().count()).unwrap_or(u64::MAX),
                connections: matching()
                    .take(filter.limit)
                    .map(|row| convert::connection(row, snapshot.at))
                    .collect(),
            })
        })
        .await?
}

async fn upstreams(State(shown): Shared, pairs: Parameters) -> Result<Response, Failure> {
    filter(&shown, pairs, &[])?;
    shown
        .take(|source| to_json(&convert::upstreams(&source.snapshot(false))))
        .await?
}

async fn incidents(State(shown): Shared, pairs: Parameters) -> Result<Response, Failure> {
    let Query(pairs) = pairs.map_err(unreadable)?;
    let filter = IncidentFilter::from_query(pairs, &upstream_names(&shown))?;
    shown
        .take(move |source| {
            let facts = source.status();
            let all = source.incidents();
            let matching = || all.iter().filter(|incident| filter.has(incident));
            to_json(&api::Incidents {
                api_version: api::API_VERSION.to_owned(),
                at: source.now().to_string(),
                matched: u64::try_from(matching().count()).unwrap_or(u64::MAX),
                incidents: matching()
                    .take(filter.limit())
                    .map(|incident| incident_row(incident, &facts))
                    .collect(),
            })
        })
        .await?
}

async fn incident(
    State(shown): Shared,
    Path(id): Path<String>,
    pairs: Parameters,
) -> Result<Response, Failure> {
    filter(&shown, pairs, &[])?;
    let number = incidents::id(&id)?;
    shown
        .take(move |source| {
            let all = source.incidents();
            let Some(incident) = all.iter().find(|incident| incident.id.0 == number) else {
                return Err(no_incident(number, &all));
            };
            to_json(&api::OneIncident {
                api_version: api::API_VERSION.to_owned(),
                at: source.now().to_string(),
                incident: incident_row(incident, &source.status()),
            })
        })
        .await?
}

/// Names those that are remembered, the newest first, as far as somebody would read them.
fn no_incident(number: u64, all: &[Arc<Incident>]) -> Failure {
    let mut failure = Failure::new(
        StatusCode::NOT_FOUND,
        format!("no incident {number} is remembered"),
    );
    let known = all.iter().take(INCIDENTS_NAMED_MAX);
    failure.refusal.allowed = known.map(|incident| incident.id.0.to_string()).collect();
    failure
}

fn incident_row(incident: &Incident, facts: &StatusFacts) -> api::Incident {
    let upstream = facts.listeners.get(usize::from(incident.upstream.0));
    incidents::row(incident, upstream.map_or("", |listener| &listener.name))
}

async fn events(
    State(shown): Shared,
    headers: HeaderMap,
    pairs: Parameters,
) -> Result<Response, Failure> {
    filter(&shown, pairs, &[])?;
    let last_id = headers.get("last-event-id");
    // One that is not text is none of ours.
    let last_id = last_id.map(|id| id.to_str().unwrap_or_default());
    let now = shown.source.now();
    let stream = shown
        .source
        .events()
        .subscribe(last_id, now, shown.stop.clone());
    stream.ok_or_else(|| {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("there are {SUBSCRIBERS_MAX} subscribers, and no place for more"),
        )
    })
}

async fn status(State(shown): Shared, pairs: Parameters) -> Result<Response, Failure> {
    filter(&shown, pairs, &[])?;
    shown
        .take(|source| {
            let (snapshot, facts) = (source.snapshot(false), source.status());
            let incidents = source.incidents();
            let open = incidents.iter().filter(|one| one.closed_at.is_none());
            let open = open.count();
            to_json(&convert::status(&snapshot, &facts, source.is_ready(), open))
        })
        .await?
}

fn filter(shown: &Shown, pairs: Parameters, known: &[&str]) -> Result<Filter, Failure> {
    let Query(pairs) = pairs.map_err(unreadable)?;
    Ok(Filter::from_query(pairs, known, &upstream_names(shown))?)
}

fn unreadable(_: QueryRejection) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "the query cannot be read")
}

fn upstream_names(shown: &Shown) -> Vec<String> {
    let listeners = shown.source.status().listeners.into_iter();
    listeners.map(|listener| listener.name).collect()
}

/// Serialises on the blocking thread as well: thousands of rows are milliseconds again.
fn to_json<T: serde::Serialize>(answer: &T) -> Result<Response, Failure> {
    let mut body = serde_json::to_vec(answer)
        .map_err(|error| Failure::internal(&format!("the answer cannot be written: {error}")))?;
    body.push(b'\n');
    let kind = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

async fn unknown_path() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "there is nothing here; see /")
}

async fn unknown_method() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "everything here is read with GET",
    )
}

/// Refuses endless paths, and keeps browsers from guessing types and from keeping answers.
async fn guard(request: Request, next: Next) -> Response {
    let uri = request.uri();
    let len = uri.path().len() + uri.query().map_or(0, str::len);
    let mut response = if len > URI_LEN_MAX {
        let reason = format!("the path has {len} bytes, more than {URI_LEN_MAX}");
        Failure::new(StatusCode::URI_TOO_LONG, reason).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
