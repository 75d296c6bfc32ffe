//! What a journal shows, once more.

use std::path::PathBuf;

use anyhow::Context as _;

use super::Output;
use super::incidents;
use crate::admin::{api, incident_row};
use crate::journal::{Reader, Replay, Replayed, parts};

/// Reads what `paths` name, see [`parts`], and shows the incidents in it. What the answer may lack goes to `warn`.
pub(super) fn replay(
    paths: &[PathBuf],
    output: Output,
    mut warn: impl FnMut(&str),
) -> anyhow::Result<String> {
    let mut replay = Replay::default();
    for file in &parts(paths)? {
        Reader::open(file)
            .and_then(|mut reader| replay.read(&mut reader))
            .with_context(|| file.display().to_string())?;
    }
    let replayed = replay.finish();
    replayed.warnings.iter().for_each(|warning| warn(warning));
    let answer = answer(&replayed);
    match output {
        Output::Table => Ok(table(&answer)),
        Output::Json => {
            let mut text = serde_json::to_string_pretty(&answer).context("cannot write JSON")?;
            text.push('\n');
            Ok(text)
        }
    }
}

/// As the API of the proxy would have answered at the end of the journal.
fn answer(replayed: &Replayed) -> api::Incidents {
    let rows = replayed.incidents.iter();
    api::Incidents {
        api_version: api::API_VERSION.to_owned(),
        at: replayed.until.to_string(),
        matched: u64::try_from(replayed.incidents.len()).unwrap_or(u64::MAX),
        incidents: rows
            .map(|(incident, upstream)| incident_row(incident, upstream))
            .collect(),
    }
}

/// Incidents as lines.
pub(super) fn table(answer: &api::Incidents) -> String {
    if answer.incidents.is_empty() {
        return format!("no incident until {}\n", answer.at);
    }
    let explained: Vec<String> = answer.incidents.iter().map(incidents::explain).collect();
    incidents::rows(answer) + "\n" + &explained.join("\n")
}
