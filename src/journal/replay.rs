//! Telling an observer again what it was told.

use std::io::BufRead;
use std::sync::Arc;

use super::{ReadError, Reader};
use crate::diagnose::{Incident, News};
use crate::observer::{Observer, Sequencer};
use crate::time::Timestamp;
use crate::timeline::lines::{Header, Line, Part, UpstreamName};

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
        run.sequencer
            .tell_until(at, &mut run.observer, news, |_| {});
    }

    fn begin(&mut self, header: Header) {
        let retold = header.part.map_or(0, |part| part.retold);
        if let Some(run) = &mut self.run
            && let (Some(last), Some(next)) = (run.part, header.part)
            && last.run == next.run
            && last.number + 1 == next.number
        {
            run.part = Some(next);
            run.retold = retold;
            run.is_known = true;
            return;
        }
        self.end_run();
        self.run = Some(Run {
            part: header.part,
            observer: Observer::new(header.upstreams.clone()),
            upstreams: header.upstreams,
            sequencer: Sequencer::default(),
            retold,
            is_known: false,
        });
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else {
            return;
        };
        let found = run.observer.incidents().into_iter().map(|incident| {
            let upstream = run.upstreams.get(usize::from(incident.upstream.0));
            let name = upstream.map_or_else(String::new, |upstream| upstream.name.clone());
            (incident, name)
        });
        self.replayed.incidents.splice(0..0, found);
    }
}
