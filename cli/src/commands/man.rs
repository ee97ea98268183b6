//! `pds man DIR`: manual pages of all commands, made of what clap knows of them, and of the file formats, the protocol
//! and the guides, made of the pages in `docs/`. There is no second text that could say something else.

use std::io;
use std::path::Path;

use clap_mangen::Man;

use crate::args::Args;
use crate::error::Failure;
use crate::manual_page::{Heading, manual_page};
use crate::output::Messages;

/// A page made of a page in `docs/`.
struct Guide {
    name: &'static str,
    section: u8,
    about: &'static str,
    /// Its file in `docs/`, as links of other pages call it.
    file: &'static str,
    text: &'static str,
}

macro_rules! guides {
    ($($name:literal ($section:literal) $about:literal = $file:literal;)*) => {
        const GUIDES: &[Guide] = &[$(Guide {
            name: $name,
            section: $section,
            about: $about,
            file: $file,
            text: include_str!(concat!("../../../docs/", $file)),
        }),*];
    };
}

guides! {
    "pds-config"(5) "configuration of pds" = "config.md";
    "pds-vault"(5) "the encrypted vault of a profile" = "vault-format.md";
    "pds-audit-log"(5) "the log of what was asked of pds" = "audit-log.md";
    "pds-backup"(5) "a vault as one encrypted file" = "backup-format.md";
    "pds-json"(7) "what commands of pds print with --json" = "json.md";
    "pds-protocol"(7) "the encrypted bus of pds" = "protocol.md";
    "pds-import-export"(7) "moving secrets into pds and out of it" = "import-export.md";
    "pds-operations"(7) "backup, rotation and incidents with pds" = "operations.md";
    "pds-threat-model"(7) "what pds promises, and to whom" = "threat-model.md";
}

/// A page, and where it belongs below a folder of manual pages.
struct Page {
    /// Like `man1/pds-run.1`.
    path: String,
    text: Vec<u8>,
}

/// Writes all pages into `folder/man1`, `man5` and `man7`, over those that are there.
///
/// # Errors
/// A folder or file that cannot be written, by its path.
pub(super) fn run(messages: &Messages, folder: &Path) -> Result<(), Failure> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| Failure::File { what, path, source }
    };
    let pages = pages().map_err(failed("made", folder))?;
    for page in &pages {
        let path = folder.join(&page.path);
        if let Some(section) = path.parent() {
            std::fs::create_dir_all(section).map_err(failed("made", section))?;
        }
        std::fs::write(&path, &page.text).map_err(failed("written", &path))?;
    }
    messages.detail(format_args!("{} pages in {}", pages.len(), folder.display()));
    Ok(())
}

fn pages() -> io::Result<Vec<Page>> {
    let mut command = Args::description();
    command.build();
    let mut pages = Vec::new();
    add_commands(&command, &mut pages)?;
    pages.extend(GUIDES.iter().map(|guide| {
        let Guide { name, section, about, text, .. } = guide;
        let heading = Heading { name, section: *section, about };
        Page { path: path(name, *section), text: manual_page(&heading, text, named).into_bytes() }
    }));
    Ok(pages)
}

/// The page of a command, and those of the commands below it.
fn add_commands(command: &clap::Command, pages: &mut Vec<Page>) -> io::Result<()> {
    let name = name(command).to_owned();
    let page = Man::new(command.clone()).manual("pds").source(concat!("pds ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render(&mut text)?;
    let others: Vec<String> = match name.as_str() {
        "pds" => GUIDES.iter().map(|guide| format!("{}({})", guide.name, guide.section)).collect(),
        _ => vec!["pds(1)".to_owned()],
    };
    let mut also = clap_mangen::roff::Roff::new();
    also.control("SH", ["SEE ALSO"]).text([clap_mangen::roff::roman(others.join(", "))]);
    text.extend(also.to_roff().into_bytes());
    pages.push(Page { path: path(&name, 1), text });
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .try_for_each(|below| add_commands(below, pages))
}

/// Its name with those of the commands it belongs to, like `pds-factor-add`.
fn name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn path(name: &str, section: u8) -> String {
    format!("man{section}/{name}.{section}")
}

/// How a manual page calls what a link in `docs/` leads to.
fn named(link: &str) -> Option<String> {
    let file = link.split('#').next().unwrap_or_default();
    let guide = GUIDES.iter().find(|guide| guide.file == file)?;
    Some(format!("{}({})", guide.name, guide.section))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_has_a_page_with_all_its_options() {
        fn check(command: &clap::Command, pages: &[Page]) {
            let name = name(command);
            let page =
                pages.iter().find(|page| page.path == path(name, 1)).unwrap_or_else(|| panic!("{name}"));
            let text = String::from_utf8_lossy(&page.text).replace('\\', "");
            let shown = command.get_arguments().filter(|option| !option.is_hide_set());
            for option in shown.filter_map(clap::Arg::get_long) {
                assert!(text.contains(&format!("--{option}")), "{name}: --{option}");
            }
            command.get_subcommands().for_each(|below| check(below, pages));
        }
        let mut command = Args::description();
        command.build();
        check(&command, &pages().unwrap());
    }

    #[test]
    fn every_page_of_docs_is_a_manual_page() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let names =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let there: BTreeSet<String> = names.filter(|name| name.ends_with(".md")).collect();
        let known: BTreeSet<String> = GUIDES.iter().map(|guide| guide.file.to_owned()).collect();
        assert_eq!(there, known);
    }

    #[test]
    fn every_command_is_on_the_page_of_json() {
        fn check(command: &clap::Command, text: &str) {
            let below: Vec<_> = command.get_subcommands().collect();
            let words = name(command).to_owned();
            let spoken = command.get_bin_name().unwrap_or(&words);
            assert!(!below.is_empty() || text.contains(&format!("`{spoken}`")), "{spoken}");
            below.iter().for_each(|below| check(below, text));
        }
        let mut command = Args::description();
        command.build();
        check(&command, GUIDES.iter().find(|guide| guide.file == "json.md").unwrap().text);
    }

    #[test]
    fn what_the_configuration_page_shows_is_a_configuration() {
        let guide = GUIDES.iter().find(|guide| guide.file == "config.md").unwrap();
        let blocks: Vec<&str> =
            guide.text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(blocks.len() >= 3);
        for block in &blocks {
            core_types::config::Config::parse(block).unwrap_or_else(|error| panic!("{error}:\n{block}"));
            core_types::policy_check::check(block).unwrap_or_else(|error| panic!("{error}:\n{block}"));
        }
        // The first has every default.
        assert_eq!(core_types::config::Config::parse(blocks[0]), Ok(core_types::config::Config::default()));
    }
}
