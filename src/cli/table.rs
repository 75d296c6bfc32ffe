//! Tables that fit a terminal: columns as wide as their content, and where that is too wide the texts give way.

use std::cell::Cell as Shared;

use super::format::{shorten, width};

/// Columns where nothing tells how many there are, as in a pipe.
const WIDTH_USUAL: usize = 100;
/// The narrowest and the widest page a table is made for.
const WIDTHS: (usize, usize) = (80, 240);
/// Sentences in longer lines are hard to read.
const PROSE_WIDTH_MAX: usize = 120;
/// A text that gives way keeps at least this many columns.
const TEXT_WIDTH_MIN: usize = 8;
/// Before that it keeps these, the longest IPv4 address with what tells that a name stood before it.
const NAME_WIDTH_MIN: usize = 20;
/// One that gives way before the others keeps these until they have given way.
const ASIDE_WIDTH_MIN: usize = 14;

thread_local! {
    /// Columns of the page this thread prints on: the one thing about it that every table must know.
    static WIDTH: Shared<usize> = const { Shared::new(WIDTH_USUAL) };
}

/// From now on pages have so many columns, within reason.
pub(super) fn set_width(columns: usize) {
    let (least, most) = WIDTHS;
    WIDTH.set(columns.clamp(least, most));
}

/// Columns of a page.
pub(super) fn page_width() -> usize {
    WIDTH.get()
}

/// Columns of the terminal, or as many as `COLUMNS` says; neither is known in a pipe.
pub(super) fn terminal_width() -> usize {
    let asked = std::env::var("COLUMNS").ok();
    let asked = asked.and_then(|columns| columns.parse().ok());
    let measured = || {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        (size.ws_col > 0).then(|| usize::from(size.ws_col))
    };
    asked.or_else(measured).unwrap_or(WIDTH_USUAL)
}

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// A text, left; it gives way.
    Text,
    /// A text of less importance, left; it gives way before the others.
    Aside,
    /// A number, right.
    Number,
    /// A number that is left out where the page is too narrow, the last one first.
    Spare,
}

/// One entry. The text must be harmless already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    /// Columns at the end that are kept when the text is cut.
    tail: usize,
}

impl Cell {
    /// A text whose last part, `tail`, tells it from others.
    pub(super) fn with_tail(head: &str, tail: &str) -> Self {
        Self {
            text: format!("{head}{tail}"),
            tail: width(tail),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            tail: 0,
        }
    }
}

/// Renders rows under their headings, which may have two lines; `totals` stand below a line.
pub(super) fn render<const N: usize>(
    columns: [(&str, Align); N],
    rows: &[[Cell; N]],
    totals: Option<&[Cell; N]>,
) -> String {
    // A heading of one line stands on the lower one.
    let lower = columns.map(|(head, _)| Cell::from(head.rsplit('\n').next().unwrap_or_default()));
    let upper =
        columns.map(|(head, _)| Cell::from(head.rsplit_once('\n').map_or("", |(up, _)| up)));
    let all = || [&upper, &lower].into_iter().chain(rows).chain(totals);
    let mut widths = [0; N];
    for row in all() {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = width(&cell.text).max(*widest);
        }
    }
    let mut is_shown = [true; N];
    let gap = fit(&columns, &mut widths, &mut is_shown);
    let left_out: Vec<String> = columns
        .iter()
        .zip(is_shown)
        .filter(|(_, is_shown)| !is_shown)
        .map(|((head, _), _)| head.replace('\n', ""))
        .collect();

    let mut text = String::new();
    let mut push = |row: &[Cell; N]| {
        let mut line = String::new();
        let columns = columns.iter().zip(&widths).zip(is_shown);
        for (cell, (((_, align), &columns), is_shown)) in row.iter().zip(columns) {
            if !is_shown {
                continue;
            }
            let shown = shorten(&cell.text, columns, cell.tail);
            let space = " ".repeat(columns.saturating_sub(width(&shown)));
            match align {
                Align::Text | Align::Aside => line.extend([shown.as_str(), &space, gap]),
                Align::Number | Align::Spare => line.extend([space.as_str(), &shown, gap]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    let mut above = upper.iter().zip(is_shown);
    if above.any(|(cell, is_shown)| is_shown && !cell.text.is_empty()) {
        push(&upper);
    }
    push(&lower);
    rows.iter().for_each(&mut push);
    if let Some(totals) = totals {
        let line = widths.map(|columns| Cell::from("-".repeat(columns)));
        push(&line);
        push(totals);
    }
    if !left_out.is_empty() {
        let left_out = format!("left out, the page is narrow: {}", left_out.join(", "));
        text += &wrap("", &left_out);
    }
    text
}

/// Narrows the gaps first, then the widest texts, then leaves columns out, until a row fits; gives the gap.
fn fit<const N: usize>(
    columns: &[(&str, Align); N],
    widths: &mut [usize; N],
    is_shown: &mut [bool; N],
) -> &'static str {
    let page = page_width();
    // A row with gaps of this many columns.
    let row = |widths: &[usize; N], is_shown: &[bool; N], gap: usize| {
        let shown = widths.iter().zip(is_shown).filter(|(_, shown)| **shown);
        let sum = shown.clone().map(|(columns, _)| columns).sum::<usize>();
        sum + shown.count().saturating_sub(1) * gap
    };
    if row(widths, is_shown, 2) <= page {
        return "  ";
    }
    for (align, least) in [
        (Align::Aside, ASIDE_WIDTH_MIN),
        (Align::Text, NAME_WIDTH_MIN),
        (Align::Aside, TEXT_WIDTH_MIN),
        (Align::Text, TEXT_WIDTH_MIN),
    ] {
        // Before names are cut short.
        let is_last = align == Align::Text && least == TEXT_WIDTH_MIN;
        while is_last && row(widths, is_shown, 1) > page {
            let spare = columns.iter().zip(&*is_shown);
            let spare = spare
                .enumerate()
                .filter(|(_, ((_, align), shown))| *align == Align::Spare && **shown)
                .map(|(place, _)| place)
                .next_back();
            let Some(spare) = spare else {
                break;
            };
            is_shown[spare] = false;
        }
        while row(widths, is_shown, 1) > page {
            let widest = columns
                .iter()
                .zip(widths.iter_mut())
                .filter(|((_, found), columns)| *found == align && **columns > least)
                .map(|(_, columns)| columns)
                .max();
            let Some(widest) = widest else {
                break;
            };
            *widest -= 1;
        }
    }
    " "
}

/// Breaks a text at spaces so that no line is too wide; lines after the first are indented like its mark.
pub(super) fn wrap(mark: &str, text: &str) -> String {
    let page = page_width().min(PROSE_WIDTH_MAX);
    let indent = " ".repeat(width(mark));
    let mut lines = String::new();
    let mut line = mark.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        let space = usize::from(!is_empty);
        if !is_empty && width(&line) + space + width(word) > page {
            lines.push_str(&line);
            lines.push('\n');
            line.clone_from(&indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        let room = page.saturating_sub(width(&line));
        line.push_str(&shorten(word, room, 0));
        is_empty = false;
    }
    lines + &line + "\n"
}
