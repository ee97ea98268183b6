//! What may stand next on a command line that is not finished: found in clap's description of the commands, so that a new
//! command or option is completed without a word about it elsewhere. Names of secrets and profiles are asked for.

use clap::{Arg, Command, ValueHint};

/// What asks for names while a command line is completed.
pub(crate) trait Names {
    /// The secrets whose names begin so, of the profile that the line names, or of the one that is used without.
    fn secrets(&mut self, profile: Option<&str>, beginning: &str) -> Vec<String>;
    /// The profiles.
    fn profiles(&mut self) -> Vec<String>;
}

/// What the shell shall offer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// These words, each with what is said of it.
    Words(Vec<(String, String)>),
    /// Files, as the shell knows them.
    Files,
    /// What another program takes, whose command line begins after `--`.
    Program,
}

/// What an argument holds.
enum Kind {
    Secret,
    /// Secrets with commas between.
    Secrets,
    /// `VAR=NAME`.
    Mapping,
    /// `pds://PROFILE/NAME`.
    Reference,
    Profile,
    OneOf(Vec<(String, String)>),
    Files,
    Program,
    Anything,
}

/// What an argument of the command `path` (like `audit show`) holds.
fn kind(path: &str, argument: &Arg) -> Kind {
    match (path, argument.get_id().as_str()) {
        (_, "profiles") => Kind::Profile,
        ("set" | "get" | "edit" | "qr" | "totp" | "history" | "restore" | "purge" | "explain", "name")
        | ("rm", "names")
        | ("mv", "from" | "to")
        | ("list" | "grant", "pattern")
        | ("audit show", "secret")
        | ("run", "descriptors" | "stdin") => Kind::Secret,
        (_, "only") => Kind::Secrets,
        (_, "mappings") => Kind::Mapping,
        (_, "reference") => Kind::Reference,
        ("run", "command") => Kind::Program,
        _ => by_values(argument),
    }
}

fn by_values(argument: &Arg) -> Kind {
    let possible: Vec<_> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| (value.get_name().to_owned(), first_line(value.get_help())))
        .collect();
    match argument.get_value_hint() {
        _ if !possible.is_empty() => Kind::OneOf(possible),
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath => Kind::Files,
        _ => Kind::Anything,
    }
}

/// A line as far as it was read: what is known before its last word.
struct Line<'a> {
    command: &'a Command,
    path: String,
    /// Words that were no options.
    positionals: usize,
    /// An option whose value comes next.
    pending: Option<&'a Arg>,
    /// Whether `--` has come.
    escaped: bool,
    profile: Option<String>,
}

impl<'a> Line<'a> {
    fn read(root: &'a Command, words: &[String]) -> Self {
        let mut line = Self {
            command: root,
            path: String::new(),
            positionals: 0,
            pending: None,
            escaped: false,
            profile: None,
        };
        words.iter().for_each(|word| line.take(word));
        line
    }

    fn take(&mut self, word: &str) {
        if self.escaped {
            self.positionals += 1;
        } else if let Some(option) = self.pending.take() {
            self.note(option, word);
        } else if word == "--" {
            self.escaped = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            self.option(self.long(name), value);
        } else if let Some(shorts) = word.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
            self.shorts(shorts);
        } else if let Some(below) = self.command.find_subcommand(word).filter(|_| self.positionals == 0) {
            self.command = below;
            self.path = format!("{} {word}", self.path).trim_start().to_owned();
        } else {
            self.positionals += 1;
        }
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|argument| argument.get_long() == Some(name))
    }

    /// `-qp work`, `-pwork` and the like: flags, until one takes a value.
    fn shorts(&mut self, shorts: &str) {
        for (place, letter) in shorts.char_indices() {
            let option = self.command.get_arguments().find(|argument| argument.get_short() == Some(letter));
            if option.is_some_and(wants_value) {
                let rest = &shorts[place + letter.len_utf8()..];
                self.option(
                    option,
                    Some(rest.strip_prefix('=').unwrap_or(rest)).filter(|rest| !rest.is_empty()),
                );
                return;
            }
        }
    }

    fn option(&mut self, option: Option<&'a Arg>, value: Option<&str>) {
        match (option, value) {
            (Some(option), Some(value)) => self.note(option, value),
            (Some(option), None) if wants_value(option) => self.pending = Some(option),
            _ => {}
        }
    }

    /// Keeps the value of an option that matters to others.
    fn note(&mut self, option: &Arg, value: &str) {
        if option.get_id() == "profiles" {
            self.profile = Some(value.to_owned());
        }
    }

    /// The argument that a word without a dash is for.
    fn positional(&self) -> Option<&'a Arg> {
        let many = |argument: &&Arg| argument.get_num_args().is_some_and(|range| range.max_values() > 1);
        let all = || self.command.get_positionals().filter(|argument| !argument.is_last_set());
        all().nth(self.positionals).or_else(|| all().last().filter(many))
    }

    fn values(&self, argument: &Arg, beginning: &str, names: &mut dyn Names) -> Offer {
        let profile = self.profile.as_deref();
        let plain = |names: Vec<String>| names.into_iter().map(|name| (name, String::new())).collect();
        let behind = |before: &str, names: Vec<String>| {
            plain(names.into_iter().map(|name| format!("{before}{name}")).collect())
        };
        Offer::Words(match kind(&self.path, argument) {
            Kind::Secret => plain(names.secrets(profile, beginning)),
            Kind::Secrets => {
                let (before, last) = beginning.split_at(beginning.rfind(',').map_or(0, |comma| comma + 1));
                behind(before, names.secrets(profile, last))
            }
            Kind::Mapping => match beginning.split_once('=') {
                Some((variable, name)) => behind(&format!("{variable}="), names.secrets(profile, name)),
                None => Vec::new(),
            },
            Kind::Reference => references(beginning, names),
            Kind::Profile => plain(names.profiles()),
            Kind::OneOf(values) => values,
            Kind::Anything => Vec::new(),
            Kind::Files => return Offer::Files,
            Kind::Program => return Offer::Program,
        })
    }
}

/// References that begin so: first their profiles, then the secrets of one.
fn references(beginning: &str, names: &mut dyn Names) -> Vec<(String, String)> {
    const SCHEME: &str = "pds://";
    let found = match beginning.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')) {
        Some((profile, name)) => {
            let secrets = names.secrets(Some(profile), name);
            secrets.into_iter().map(|name| format!("{SCHEME}{profile}/{name}")).collect()
        }
        None => names.profiles().into_iter().map(|profile| format!("{SCHEME}{profile}/")).collect::<Vec<_>>(),
    };
    found.into_iter().map(|reference| (reference, String::new())).collect()
}

/// What may stand in the place of the last of `words`, which follow the name of the program.
pub(crate) fn offer(root: &Command, words: &[String], names: &mut dyn Names) -> Offer {
    let Some((current, before)) = words.split_last() else { return Offer::Words(Vec::new()) };
    let line = Line::read(root, before);
    let offered = if let Some(option) = line.pending {
        line.values(option, current, names)
    } else if line.escaped {
        let last = line.command.get_positionals().find(|argument| argument.is_last_set());
        last.or_else(|| line.positional())
            .map_or(Offer::Words(Vec::new()), |argument| line.values(argument, current, names))
    } else if let Some((name, value)) = current.strip_prefix("--").and_then(|long| long.split_once('=')) {
        match line.long(name).map(|option| line.values(option, value, names)) {
            Some(Offer::Words(words)) => Offer::Words(
                words.into_iter().map(|(word, said)| (format!("--{name}={word}"), said)).collect(),
            ),
            other => other.unwrap_or(Offer::Words(Vec::new())),
        }
    } else if current.starts_with('-') {
        Offer::Words(options(line.command))
    } else if line.command.has_subcommands() {
        Offer::Words(commands(line.command))
    } else {
        match line.positional() {
            Some(argument) => line.values(argument, current, names),
            None => Offer::Words(options(line.command)),
        }
    };
    match offered {
        Offer::Words(words) => Offer::Words(beginning_with(words, current)),
        other => other,
    }
}

/// Those that begin so. A word that a shell reads as anything but itself is not offered, and a name that begins with a dash
/// would be read as an option.
fn beginning_with(mut words: Vec<(String, String)>, current: &str) -> Vec<(String, String)> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._/-=,:".contains(letter);
    words.retain(|(word, _)| {
        word.starts_with(current)
            && word.chars().all(is_plain)
            && (!word.starts_with('-') || current.starts_with('-'))
    });
    words
}

fn commands(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    shown.map(|below| (below.get_name().to_owned(), first_line(below.get_about()))).collect()
}

fn options(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    shown
        .filter_map(|argument| Some((format!("--{}", argument.get_long()?), first_line(argument.get_help()))))
        .collect()
}

fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
}

/// Whether a value has to follow.
fn wants_value(option: &Arg) -> bool {
    option.get_action().takes_values() && option.get_num_args().is_none_or(|range| range.min_values() > 0)
}

/// Joins the words of bash, which ends a word before and after each `=` and `:`, and says how much of the last one bash
/// takes for a word before the one that it completes.
pub(crate) fn joined(words: &[String]) -> (Vec<String>, usize) {
    let is_break = |word: &str| !word.is_empty() && word.chars().all(|letter| letter == '=' || letter == ':');
    let (mut whole, mut before, mut was_break) = (Vec::<String>::new(), 0, false);
    for word in words {
        let breaks = is_break(word);
        match whole.last_mut() {
            Some(last) if breaks || was_break => {
                before = if breaks { last.len() + word.len() } else { last.len() };
                last.push_str(word);
            }
            _ => {
                before = 0;
                whole.push(word.clone());
            }
        }
        was_break = breaks;
    }
    (whole, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::args::Args;

    /// Profiles `work` and `home`; secrets that tell whose they are.
    #[derive(Default)]
    struct Known {
        asked: Vec<(Option<String>, String)>,
    }

    impl Names for Known {
        fn secrets(&mut self, profile: Option<&str>, beginning: &str) -> Vec<String> {
            self.asked.push((profile.map(str::to_owned), beginning.to_owned()));
            ["db/password", "db/user", "-odd", "api"].map(str::to_owned).into()
        }
        fn profiles(&mut self) -> Vec<String> {
            vec!["home".to_owned(), "work".to_owned()]
        }
    }

    fn built() -> Command {
        let mut command = Args::description();
        command.build();
        command
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn offered(line: &str) -> Offer {
        offer(&built(), &words(line), &mut Known::default())
    }

    fn names(line: &str) -> Vec<String> {
        match offered(line) {
            Offer::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_and_options_come_from_their_one_description() {
        assert_eq!(names("res"), ["restore-backup", "restore"]);
        assert_eq!(names("audit v"), ["verify"]);
        assert_eq!(names("get --ver"), ["--verbose", "--version"]);
        assert!(names("list -").contains(&"--profile".to_owned()));
        assert_eq!(names("import --format k"), ["keepass-xml"]);
        assert_eq!(names("--color=a"), ["--color=auto", "--color=always"]);
        assert_eq!(names("get x y"), [""; 0]);
        assert_eq!(names("nonsense "), names(""));
        let Offer::Words(words) = offered("ge") else { panic!("no words") };
        assert_eq!(words, [("get".to_owned(), "Write the value of a secret to standard output".to_owned())]);
    }

    #[test]
    fn names_are_asked_for_where_names_stand() {
        for line in
            ["get db/", "rm x y db/", "mv a db/", "-q totp db/", "audit show --secret db/", "run --fd db/"]
        {
            assert_eq!(names(line), ["db/password", "db/user"], "{line}");
        }
        assert_eq!(names("run --only a,db/p"), ["a,db/password"]);
        assert_eq!(names("run --env PW=db/p"), ["PW=db/password"]);
        assert_eq!(names("run --only=db/p"), ["--only=db/password"]);
        assert_eq!(names("get "), ["db/password", "db/user", "api"], "none that looks like an option");
        assert_eq!(names("read pds://w"), ["pds://work/"]);
        assert_eq!(names("read pds://work/db/p"), ["pds://work/db/password"]);
        for line in ["-p w", "get --profile w", "-qp w"] {
            assert_eq!(names(line), ["work"], "{line}");
        }
    }

    #[test]
    fn the_profile_of_the_line_is_the_one_that_is_asked() {
        for (line, profile) in [
            ("get d", None),
            ("-p work get d", Some("work")),
            ("get -pwork d", Some("work")),
            ("get --profile=work d", Some("work")),
            ("-qp work get d", Some("work")),
            ("read pds://work/d", Some("work")),
        ] {
            let mut known = Known::default();
            offer(&built(), &words(line), &mut known);
            assert_eq!(known.asked, [(profile.map(str::to_owned), "d".to_owned())], "{line}");
        }
    }

    #[test]
    fn files_and_other_programs_are_the_shells() {
        assert_eq!(offered("set a --file x"), Offer::Files);
        assert_eq!(offered("backup x"), Offer::Files);
        assert_eq!(offered("import --format json x"), Offer::Files);
        assert_eq!(offered("run -p work -- ma"), Offer::Program);
        assert_eq!(offered("run -- make -p te"), Offer::Program);
    }

    #[test]
    fn a_word_that_a_shell_would_read_otherwise_is_not_offered() {
        let given = ["a b", "a$(x)", "a'b", "a\nb", "a\\b", "a;b", "a*", "äx", "fine/a.b_c-d"];
        let given = given.map(|word| (word.to_owned(), String::new()));
        assert_eq!(beginning_with(given.into(), "").len(), 1);
    }

    #[test]
    fn every_argument_that_is_called_a_name_is_known_as_one() {
        // Names of something else.
        const OTHERS: [&str; 3] = ["enroll name", "revoke name", "export name"];
        fn check(command: &Command, path: &str) {
            for argument in command.get_arguments().filter(|argument| argument.get_action().takes_values()) {
                let called = argument.get_value_names().unwrap_or_default();
                let is_name = called.iter().any(|name| name.contains("NAME"));
                let place = format!("{path} {}", argument.get_id());
                let known = !matches!(kind(path, argument), Kind::Anything | Kind::OneOf(_) | Kind::Files);
                assert!(known || !is_name || OTHERS.contains(&place.as_str()), "{place} is not completed");
            }
            for below in command.get_subcommands() {
                check(below, format!("{path} {}", below.get_name()).trim_start());
            }
        }
        check(&built(), "");
    }

    #[test]
    fn the_pieces_of_bash_are_one_word() {
        for (line, whole, before) in [
            ("get db/p", "get db/p", 0),
            ("--profile = wo", "--profile=wo", 10),
            ("--profile =", "--profile=", 10),
            ("read pds : //work/d", "read pds://work/d", 4),
            ("run --env A = d", "run --env A=d", 2),
            ("get --profile = work ", "get --profile=work ", 0),
            ("", "", 0),
        ] {
            assert_eq!(joined(&words(line)), (words(whole), before), "{line}");
        }
    }
}
