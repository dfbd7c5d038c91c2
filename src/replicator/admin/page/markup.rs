//! Markup of the page: sections, tables that are bounded in rows and bytes, and text that cannot be taken for markup.
use std::fmt::Write;

/// Rows of a table.
pub(super) const ROWS_MAX: usize = 50;

/// A table, and what bounds it.
pub(super) struct Table<'a> {
    /// For those who hear the page.
    pub what: &'a str,
    pub head: &'a [&'a str],
    /// Most bytes of its rows: those of all tables together leave the page below 100 kB.
    pub bytes_max: usize,
    /// How many there are, shown or not.
    pub all: u64,
    /// What shows the rest.
    pub verb: &'a str,
}

impl Table<'_> {
    /// With these rows, whose cells are markup, as far as they fit. It scrolls by itself where it is too wide, by keyboard too.
    pub(super) fn with(&self, rows: impl IntoIterator<Item = Vec<String>>) -> String {
        let head: String = self.head.iter().map(|cell| format!("<th scope=\"col\">{cell}</th>")).collect();
        let (mut body, mut shown) = (String::new(), 0);
        for cells in rows.into_iter().take(ROWS_MAX) {
            let row = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>();
            if body.len() + row.len() > self.bytes_max {
                break;
            }
            let _ = writeln!(body, "<tr>{row}</tr>");
            shown += 1;
        }
        let more = match self.all.saturating_sub(shown) {
            0 => String::new(),
            more => format!("<p>{more} more: <code>{}</code></p>", self.verb),
        };
        format!(
            "<div class=\"wide\" role=\"region\" aria-label=\"{}\" tabindex=\"0\"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>{more}",
            self.what
        )
    }
}

pub(super) fn section(out: &mut String, title: &str, body: &str) {
    let id = title.to_lowercase().replace(' ', "-");
    let _ = writeln!(out, "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{title}</h2>{body}</section>");
}

/// Text as markup.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}

/// Text as markup, and no more than so many characters of it.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", escaped(&text[..end])),
        None => escaped(text),
    }
}

/// A command to copy.
pub(super) fn code(command: &str) -> String {
    format!("<code>{}</code>", escaped(command))
}
