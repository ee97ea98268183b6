//! The list of commands as clap's description of them, made of those that a command line names: describing all of them
//! takes longer than everything else that a short command does.

use clap::Subcommand;

/// Makes the enum `Command` of lines `"name" => Variant { options Type }`, where the type is a [`clap::Args`],
/// `{ group Type }`, where it is a [`Subcommand`], or of a variant alone. The line above is what help says of it.
macro_rules! commands {
    ($( #[doc = $about:literal] $name:literal => $variant:ident $({ $kind:ident $of:ty })?, )*) => {
        /// The commands.
        #[derive(Debug)]
        pub(crate) enum Command {
            $( #[doc = $about] $variant $(($of))?, )*
        }

        impl clap::FromArgMatches for Command {
            fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
                match matches.subcommand() {
                    $( Some(($name, _matches)) => Ok(Self::$variant $((
                        <$of as clap::FromArgMatches>::from_arg_matches(_matches)?
                    ))?), )*
                    _ => Err(clap::Error::new(clap::error::ErrorKind::MissingSubcommand)),
                }
            }

            fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }

        impl Command {
            /// Name, what help says, and how to describe what may follow the name.
            const LIST: &[(&str, &str, Option<fn(clap::Command) -> clap::Command>)] =
                &[$( ($name, $about, $crate::lazy::describe!($($kind $of)?)), )*];

            /// Adds those commands whose names are among the words.
            fn augment_named(command: clap::Command, words: &[std::ffi::OsString]) -> clap::Command {
                Self::augment(command, &|name| words.iter().any(|word| word == name))
            }

            fn augment(root: clap::Command, wanted: &dyn Fn(&str) -> bool) -> clap::Command {
                Self::LIST.iter().filter(|(name, ..)| wanted(name)).fold(root, |root, (name, about, describe)| {
                    let command = clap::Command::new(*name).about(about.trim_start());
                    root.subcommand(match describe {
                        Some(describe) => command.defer(*describe),
                        None => command,
                    })
                })
            }
        }

        impl clap::Subcommand for Command {
            fn augment_subcommands(command: clap::Command) -> clap::Command {
                Self::augment(command, &|_| true)
            }

            fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
                Self::augment_subcommands(command)
            }

            fn has_subcommand(name: &str) -> bool {
                [$($name),*].contains(&name)
            }
        }
    };
}
pub(crate) use commands;

/// How to describe what may follow a command's name.
macro_rules! describe {
    () => {
        None
    };
    ($kind:ident $of:ty) => {
        Some($crate::lazy::$kind::<$of>)
    };
}
pub(crate) use describe;

/// Describes a command with options.
pub(crate) fn options<T: clap::Args>(command: clap::Command) -> clap::Command {
    keeping_about(command, T::augment_args)
}

/// Describes a command with commands of its own.
pub(crate) fn group<T: Subcommand>(command: clap::Command) -> clap::Command {
    keeping_about(command, T::augment_subcommands).subcommand_required(true).arg_required_else_help(true)
}

/// What stands above a type says whose options they are, and not what the command does.
fn keeping_about(
    command: clap::Command,
    augment: impl FnOnce(clap::Command) -> clap::Command,
) -> clap::Command {
    let about = command.get_about().cloned().unwrap_or_default();
    augment(command).about(about)
}
