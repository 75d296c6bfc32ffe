//! Telling an observer again what it was told.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use super::{ReadError, Reader};
use crate::diagnose::{Incident, News};
use crate::observer::{Observer, Sequencer};
use crate::time::Timestamp;
use crate::timeline::lines::{Header, Line, Part, UpstreamName};

/// A proxy writes at least a mark a second; where it wrote nothing for so long, it did not run.
const PAUSE_MIN: Duration = Duration::from_mins(1);

/// Reads journals, the oldest first, and finds in them what the live proxy found.
#[derive(Debug, Default)]
pub struct Replay {
    run: Option<Run>,
    replayed: Replayed,
}

/// What a replay came to.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Incidents with the names of their upstreams, the newest first.
    pub incidents: Vec<(Arc<Incident>, String)>,
    /// What was news, in order.
    pub news: Vec<News>,
    /// Entries read.
    pub entries: u64,
    /// The last moment there was.
    pub until: Timestamp,
    /// What was not there to be read, so that the rest may mislead.
    pub warnings: Vec<String>,
}

/// One run of a proxy.
#[derive(Debug)]
struct Run {
    part: Option<Part>,
    upstreams: Vec<UpstreamName>,
    observer: Observer,
    sequencer: Sequencer,
    /// Entries at the beginning of the part that tell again what was open: to be learnt, or known already.
    retold: u64,
    is_known: bool,
    /// The moment of the last line; of a run that was not begun to be read there is none.
    read_until: Option<Timestamp>,
    /// Lines that are older than the line before them.
    late: u64,
    /// The first pause in which nothing was written, and how many there are.
    pause: Option<(Timestamp, Timestamp)>,
    pauses: u64,
}

impl Run {
    fn new(header: Header) -> Self {
        Self {
            part: header.part,
            observer: Observer::new(header.upstreams.clone()),
            upstreams: header.upstreams,
            sequencer: Sequencer::default(),
            retold: header.part.map_or(0, |part| part.retold),
            is_known: false,
            read_until: None,
            late: 0,
            pause: None,
            pauses: 0,
        }
    }

    /// A line has this moment.
    fn passed(&mut self, at: Timestamp) {
        let before = self.read_until.unwrap_or(at);
        self.late += u64::from(at < before);
        if self.part.is_some() && at.since(before) >= PAUSE_MIN {
            self.pauses += 1;
            self.pause.get_or_insert((before, at));
        }
        self.read_until = Some(at.max(before));
    }

    /// What its lines do not tell.
    fn warnings(&self) -> impl Iterator<Item = String> {
        let late = (self.late > 0).then(|| {
            format!(
                "{} older than the line before, as if the journal was damaged: taken to be as late as that",
                match self.late {
                    1 => "one line is".to_owned(),
                    many => format!("{many} lines are"),
                }
            )
        });
        let pause = self.pause.map(|(from, until)| {
            let more = match self.pauses {
                ..=1 => String::new(),
                many => format!(", and {} more times", many - 1),
            };
            format!("nothing was written between {from} and {until}{more}: what happened then is not known")
        });
        late.into_iter().chain(pause)
    }
}

impl Replay {
    /// Reads one file, or one part of several.
    ///
    /// # Errors
    ///
    /// When it is not a journal; what was read before it counts.
    pub fn read(&mut self, reader: &mut Reader<impl BufRead>) -> Result<(), ReadError> {
        while let Some(line) = reader.next_line()? {
            self.line(line);
        }
        Ok(())
    }

    /// The observer of the run that is being read.
    pub fn observer(&self) -> Option<&Observer> {
        self.run.as_ref().map(|run| &run.observer)
    }

    /// Everything was read.
    pub fn finish(mut self) -> Replayed {
        self.end_run();
        self.replayed
    }

    fn line(&mut self, line: Line) {
        if let Line::Header(header) = line {
            self.begin(header);
            return;
        }
        // A journal begins with a header, so there is one.
        let Some(run) = &mut self.run else {
            return;
        };
        let (at, entry) = match line {
            Line::Header(_) => return,
            Line::Mark(at) => (at, None),
            Line::Entry(entry) => (entry.at, Some(entry)),
        };
        let news = &mut self.replayed.news;
        if let Some(entry) = entry {
            if run.retold > 0 {
                run.retold -= 1;
                // These are older than everything that follows: no time passes between them.
                if !run.is_known {
                    run.observer.record(&entry, news);
                }
                return;
            }
            self.replayed.entries += 1;
            run.sequencer.push(entry);
        }
        self.replayed.until = at;
        run.passed(at);
        run.sequencer
            .tell_until(at, &mut run.observer, news, |_| {});
    }

    fn begin(&mut self, header: Header) {
        let last = self.run.as_ref().and_then(|run| run.part);
        if let Some(run) = &mut self.run
            && let (Some(last), Some(next)) = (last, header.part)
            && last.run == next.run
            && last.number + 1 == next.number
        {
            run.part = Some(next);
            run.retold = next.retold;
            run.is_known = true;
            return;
        }
        self.end_run();
        self.replayed.warnings.extend(missing(last, header.part));
        self.run = Some(Run::new(header));
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else {
            return;
        };
        self.replayed.warnings.extend(run.warnings());
        let found = run.observer.incidents().into_iter().map(|incident| {
            let upstream = run.upstreams.get(usize::from(incident.upstream.0));
            let name = upstream.map_or_else(String::new, |upstream| upstream.name.clone());
            (incident, name)
        });
        self.replayed.incidents.splice(0..0, found);
    }
}

/// What was not read between the part that was read last and the one that begins.
fn missing(last: Option<Part>, next: Option<Part>) -> Option<String> {
    let next = next?;
    let last = last.filter(|last| last.run == next.run);
    let known = "what was open is told again at its beginning, what was over by then is not known";
    let text = match (last.map(|last| last.number), next.number) {
        (None, 0) => return None,
        (None, 1) => format!("part 1 of the run that began at {} is not there", next.run),
        (None, number) => format!(
            "parts 1 to {number} of the run that began at {} are not there",
            next.run
        ),
        (Some(last), number) => format!(
            "part {} of the run that began at {} follows part {}",
            number + 1,
            next.run,
            last + 1,
        ),
    };
    Some(format!("{text}: {known}"))
}
