//! Asks a running instance, one request a connection.

use std::io;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::admin::api::Refusal;

/// Time for a whole question; an instance on this machine answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read: 100,000 connections have less.
const ANSWER_LEN_MAX: usize = 256 * 1024 * 1024;

/// Digits of an escape in a path (RFC 3986 § 2.1 prefers capitals).
const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";

/// A running instance.
#[derive(Debug)]
pub(super) struct Instance<'a> {
    address: &'a str,
}

impl<'a> Instance<'a> {
    pub(super) fn at(address: &'a str) -> Self {
        Self { address }
    }

    /// The answers to several paths.
    pub(super) async fn get_all<const N: usize>(
        &self,
        paths: &[String; N],
    ) -> anyhow::Result<[Vec<u8>; N]> {
        let mut answers = [const { Vec::new() }; N];
        for (answer, path) in answers.iter_mut().zip(paths) {
            *answer = tokio::time::timeout(PATIENCE, self.get(path))
                .await
                .map_err(|_| anyhow!("no answer from {} within {PATIENCE:?}", self.address))??;
        }
        Ok(answers)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|error| anyhow!("no poolscope at {}: {}", self.address, said(&error)))?;
        let stranger = || format!("{} answers, but not as poolscope does", self.address);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .with_context(stranger)?;
        let request = Request::get(path)
            .header(header::HOST, self.address)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .context("the question cannot be put")?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LEN_MAX);
            let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
            Ok::<_, anyhow::Error>((status, body.to_bytes().to_vec()))
        };
        let (answer, _) = tokio::join!(exchange, connection);
        let (status, body) = answer.with_context(stranger)?;
        if status == StatusCode::OK {
            return Ok(body);
        }
        let Ok(refusal) = serde_json::from_slice::<Refusal>(&body) else {
            bail!("{}: it said {status}", stranger());
        };
        if refusal.allowed.is_empty() {
            bail!("{} refuses: {}", self.address, refusal.error);
        }
        bail!(
            "{}; there are {}",
            refusal.error,
            refusal.allowed.join(", ")
        )
    }
}

/// Reads an answer as rows.
pub(super) fn decode<T: DeserializeOwned>(answer: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(answer).context("the answer is not one of this version of poolscope")
}

/// A path of the API with the filters that are given.
pub(super) fn path(rows: &str, filters: &[(&str, Option<String>)]) -> String {
    let mut path = format!("/api/v1/{rows}");
    let given = filters
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)));
    for (position, (name, value)) in given.enumerate() {
        path.push(if position == 0 { '?' } else { '&' });
        path.push_str(name);
        path.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                path.push('%');
                path.extend(
                    [byte >> 4, byte & 15].map(|half| char::from(HEXADECIMAL[usize::from(half)])),
                );
            }
        }
    }
    path
}

/// What the system said, without its number.
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}
