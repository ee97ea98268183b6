//! Markdown, as the pages in `docs/` use it, as a manual page (man(7)).

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// What stands at the top of a page.
pub(crate) struct Heading<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The section of the manual.
    pub(crate) section: u8,
    /// What it is about, in half a line.
    pub(crate) about: &'a str,
}

/// The page as roff. `named` says how a manual page calls what a link leads to; of other links the text alone is left,
/// or the address where it is one of the web.
pub(crate) fn manual_page(
    heading: &Heading<'_>,
    markdown: &str,
    named: impl Fn(&str) -> Option<String>,
) -> String {
    let Heading { name, section, about } = heading;
    let mut writer = Writer::new(named);
    writer.roff.control(
        "TH",
        [
            name.to_uppercase().as_str(),
            &section.to_string(),
            "",
            concat!("pds ", env!("CARGO_PKG_VERSION")),
            "pds",
        ],
    );
    writer.roff.control("SH", ["NAME"]).text([roman(format!("{name} - {about}"))]);
    writer.roff.control("SH", ["DESCRIPTION"]);
    Parser::new_ext(markdown, Options::ENABLE_TABLES).for_each(|event| writer.take(event));
    writer.roff.render()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Strong,
    Emphasis,
}

struct Writer<F> {
    roff: Roff,
    named: F,
    /// What will be the next line of text.
    line: Vec<Inline>,
    styles: Vec<Style>,
    /// For each list that is open: the number of its next item, if it is numbered.
    lists: Vec<Option<u64>>,
    /// An item has just begun, and its first paragraph needs no space above it.
    in_new_item: bool,
    /// Text that stands as it is.
    code: Option<String>,
    link: Option<String>,
    /// The names of a table's columns, and the cells of the row that is read.
    columns: Vec<Vec<Inline>>,
    cells: Vec<Vec<Inline>>,
    /// The first heading is the page's own.
    past_title: bool,
}

impl<F: Fn(&str) -> Option<String>> Writer<F> {
    fn new(named: F) -> Self {
        Self {
            roff: Roff::new(),
            named,
            line: Vec::new(),
            styles: Vec::new(),
            lists: Vec::new(),
            in_new_item: false,
            code: None,
            link: None,
            columns: Vec::new(),
            cells: Vec::new(),
            past_title: false,
        }
    }

    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.text(&text),
            },
            Event::Code(text) => self.line.push(bold(text.as_ref())),
            Event::SoftBreak | Event::HardBreak => self.text(" "),
            Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        self.line.push(match self.styles.last() {
            Some(Style::Strong) => bold(text),
            Some(Style::Emphasis) => italic(text),
            None => roman(text),
        });
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph if std::mem::take(&mut self.in_new_item) => {}
            Tag::Paragraph => {
                self.roff.control("PP", []);
            }
            Tag::CodeBlock(kind) => {
                self.flush();
                let _language: CodeBlockKind<'_> = kind;
                self.code = Some(String::new());
            }
            Tag::List(first) => {
                self.flush();
                if !self.lists.is_empty() {
                    self.roff.control("RS", ["4"]);
                }
                self.lists.push(first);
            }
            Tag::Item => {
                let label = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}.", *number - 1)
                    }
                    _ => "•".to_owned(),
                };
                self.roff.control("IP", [label.as_str(), "4"]);
                self.in_new_item = true;
            }
            Tag::Strong => self.styles.push(Style::Strong),
            Tag::Emphasis => self.styles.push(Style::Emphasis),
            Tag::Link { dest_url, .. } => self.link = Some(dest_url.into_string()),
            Tag::Table(_) => self.columns.clear(),
            Tag::TableRow => self.cells.clear(),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => self.heading(level),
            TagEnd::Paragraph => self.flush(),
            TagEnd::Item => {
                self.flush();
                self.in_new_item = false;
            }
            TagEnd::CodeBlock => self.example(),
            TagEnd::List(_) => {
                self.lists.pop();
                if !self.lists.is_empty() {
                    self.roff.control("RE", []);
                }
            }
            TagEnd::Strong | TagEnd::Emphasis => drop(self.styles.pop()),
            TagEnd::Link => self.leave_link(),
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.line)),
            TagEnd::TableHead => self.columns = std::mem::take(&mut self.cells),
            TagEnd::TableRow => self.row(),
            _ => {}
        }
    }

    /// What was read of the line, as a line.
    fn flush(&mut self) {
        if !self.line.is_empty() {
            self.roff.text(std::mem::take(&mut self.line));
        }
    }

    fn heading(&mut self, level: HeadingLevel) {
        let words: String = std::mem::take(&mut self.line).iter().map(words).collect();
        match level {
            HeadingLevel::H1 if !std::mem::replace(&mut self.past_title, true) => {}
            HeadingLevel::H1 | HeadingLevel::H2 => {
                self.roff.control("SH", [words.to_uppercase().as_str()]);
            }
            _ => {
                self.roff.control("SS", [words.as_str()]);
            }
        }
    }

    fn example(&mut self) {
        let Some(code) = self.code.take() else { return };
        self.roff.control("PP", []).control("RS", ["4"]).control("EX", []);
        for line in code.lines() {
            // A line of text that is empty is taken for a paragraph's end.
            self.roff.text([roman(if line.is_empty() { " " } else { line })]);
        }
        self.roff.control("EE", []).control("RE", []);
        self.in_new_item = false;
    }

    fn leave_link(&mut self) {
        let Some(link) = self.link.take() else { return };
        match (self.named)(&link) {
            Some(page) => {
                self.line.push(roman(" ("));
                self.line.push(bold(page));
                self.line.push(roman(")"));
            }
            None if link.starts_with("http") => self.line.push(roman(format!(" <{link}>"))),
            None => {}
        }
    }

    /// A row: its first cell as a label, the others below it; with the names of the columns, where there are several.
    fn row(&mut self) {
        let mut cells = std::mem::take(&mut self.cells).into_iter();
        let Some(label) = cells.next() else { return };
        self.roff.control("TP", ["4"]);
        self.roff.text(if label.is_empty() { vec![roman("-")] } else { label });
        let several = self.columns.len() > 2;
        for (number, (cell, column)) in cells.zip(self.columns.iter().skip(1)).enumerate() {
            if number > 0 {
                self.roff.control("br", []);
            }
            let mut line = Vec::new();
            if several && !column.is_empty() {
                line.push(italic(column.iter().map(words).collect::<String>()));
                line.push(roman(": "));
            }
            line.extend(cell);
            self.roff.text(line);
        }
    }
}

fn words(inline: &Inline) -> &str {
    match inline {
        Inline::Roman(text) | Inline::Italic(text) | Inline::Bold(text) => text,
        Inline::LineBreak => " ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(markdown: &str) -> String {
        let heading = Heading { name: "pds-x", section: 5, about: "an x" };
        let page = manual_page(&heading, markdown, |link| (link == "y.md").then(|| "pds-y(7)".to_owned()));
        let start = page.find(".SH DESCRIPTION\n").unwrap() + ".SH DESCRIPTION\n".len();
        page[start..].to_owned()
    }

    #[test]
    fn what_the_pages_are_written_in_becomes_a_manual_page() {
        assert_eq!(
            page("# Title\n\nSome `code`\nand *more*.\n"),
            ".PP\nSome \\fBcode\\fR and \\fImore\\fR.\n"
        );
        assert_eq!(page("# T\n\n## Next\n\n### Below\n"), ".SH NEXT\n.SS Below\n");
        assert_eq!(page("- one\n- two\n"), ".IP • 4\none\n.IP • 4\ntwo\n");
        assert_eq!(page("3. one\n4. two\n"), ".IP 3. 4\none\n.IP 4. 4\ntwo\n");
        assert_eq!(page("[the y](y.md), [z](z.md)"), ".PP\nthe y (\\fBpds\\-y(7)\\fR), z\n");
        assert_eq!(
            page("```\n.TH\n\nlast\n```\n"),
            ".PP\n.RS 4\n.EX\n\\&.TH\n \nlast\n.EE\n.RE\n",
            "no line of an example is taken for a command"
        );
        assert_eq!(page("| a | b |\n| --- | --- |\n| 1 | 2 |\n"), ".TP 4\n1\n2\n");
        assert_eq!(
            page("| a | b | c |\n| --- | --- | --- |\n| 1 | 2 | 3 |\n"),
            ".TP 4\n1\n\\fIb\\fR: 2\n.br\n\\fIc\\fR: 3\n"
        );
    }
}
