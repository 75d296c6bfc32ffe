//! Tables that fit a terminal: columns as wide as their content, and where that is too wide the texts give way.

use super::format::{shorten, width};

/// Columns of the narrowest terminal a table is made for.
pub(super) const WIDTH_MAX: usize = 100;
/// A text that gives way keeps at least this many columns.
const TEXT_WIDTH_MIN: usize = 8;
/// Before that it keeps these, the longest IPv4 address with what tells that a name stood before it.
const NAME_WIDTH_MIN: usize = 20;
/// One that gives way before the others keeps these until they have given way.
const ASIDE_WIDTH_MIN: usize = 14;

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// A text, left; it gives way.
    Text,
    /// A text of less importance, left; it gives way before the others.
    Aside,
    /// A number, right.
    Number,
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
    let gap = fit(&columns, &mut widths);

    let mut text = String::new();
    let mut push = |row: &[Cell; N]| {
        let mut line = String::new();
        for ((cell, (_, align)), &columns) in row.iter().zip(&columns).zip(&widths) {
            let shown = shorten(&cell.text, columns, cell.tail);
            let space = " ".repeat(columns.saturating_sub(width(&shown)));
            match align {
                Align::Text | Align::Aside => line.extend([shown.as_str(), &space, gap]),
                Align::Number => line.extend([space.as_str(), &shown, gap]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    if upper.iter().any(|cell| !cell.text.is_empty()) {
        push(&upper);
    }
    push(&lower);
    rows.iter().for_each(&mut push);
    if let Some(totals) = totals {
        let line = widths.map(|columns| Cell::from("-".repeat(columns)));
        push(&line);
        push(totals);
    }
    text
}

/// Narrows the gaps first, then the widest texts, until a row fits; gives the gap.
fn fit<const N: usize>(columns: &[(&str, Align); N], widths: &mut [usize; N]) -> &'static str {
    let sum = |widths: &[usize; N]| widths.iter().sum::<usize>();
    let gaps = N.saturating_sub(1);
    if sum(widths) + 2 * gaps <= WIDTH_MAX {
        return "  ";
    }
    for (align, least) in [
        (Align::Aside, ASIDE_WIDTH_MIN),
        (Align::Text, NAME_WIDTH_MIN),
        (Align::Aside, TEXT_WIDTH_MIN),
        (Align::Text, TEXT_WIDTH_MIN),
    ] {
        while sum(widths) + gaps > WIDTH_MAX {
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
    let indent = " ".repeat(width(mark));
    let mut lines = String::new();
    let mut line = mark.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        let space = usize::from(!is_empty);
        if !is_empty && width(&line) + space + width(word) > WIDTH_MAX {
            lines.push_str(&line);
            lines.push('\n');
            line.clone_from(&indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        let room = WIDTH_MAX.saturating_sub(width(&line));
        line.push_str(&shorten(word, room, 0));
        is_empty = false;
    }
    lines + &line + "\n"
}
