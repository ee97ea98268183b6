//! The project file that `pds run` and `pds env` go by: the nearest one above the working directory, if nobody else can have
//! written it, under what the command line says itself.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use core_types::ProfileName;
use core_types::project::{PROJECT_BYTES_MAX, PROJECT_FILE, Project, ProjectError, ProjectFiles};
use core_types::protocol::launcher::Mapping;
use core_types::protocol::secrets::Selection;

use crate::args::SelectionOptions;

/// Why the project file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectFileError {
    /// It cannot be read.
    #[error("the project file {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// It is a folder or a device.
    #[error("the project file {} is not an ordinary file", path.display())]
    NotAFile { path: PathBuf },
    /// Somebody else can say what it says.
    #[error("others can write the project file {}, and so say what your commands are given", path.display())]
    WritableByOthers { path: PathBuf },
    /// There is more of it than is read.
    #[error("the project file {} is larger than {PROJECT_BYTES_MAX} bytes, the most it may have", path.display())]
    TooLarge { path: PathBuf },
    /// Its bytes are no text.
    #[error("the project file {} is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    /// What it says is not understood.
    #[error("the project file {}: {source}", path.display())]
    Wrong { path: PathBuf, source: ProjectError },
    /// What it says does not go with the command line.
    #[error("the project file {} asks for files, and {option} does not go with that", path.display())]
    FilesAndOption { path: PathBuf, option: &'static str },
}

impl ProjectFileError {
    /// What to do next.
    pub(crate) fn next(&self) -> String {
        match self {
            Self::WritableByOthers { path } => {
                let path = path.display();
                format!("look at what it says, then `chmod go-w {path}` if it is yours; --no-project does without it")
            }
            Self::Wrong { .. } | Self::NotText { .. } | Self::TooLarge { .. } => {
                "it may hold profile, only, prefix, files and [env], which are names and no values; see pds-config(5)".to_owned()
            }
            Self::Unreadable { .. } | Self::NotAFile { .. } | Self::FilesAndOption { .. } => {
                "--no-project does without it".to_owned()
            }
        }
    }
}

/// What a command is to be given, by its command line and the project file.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// The profile that the project names.
    pub(crate) profile: Option<ProfileName>,
    /// Which secrets are selected by their own names.
    pub(crate) selection: Selection,
    /// Secrets that become variables of another name, besides.
    pub(crate) mappings: Vec<Mapping>,
    /// Put before the variables made from names.
    pub(crate) prefix: String,
    /// The folder of files that the project asks for; `Some(None)` is one of pds.
    pub(crate) files: Option<Option<PathBuf>>,
    /// The project file.
    pub(crate) project: Option<PathBuf>,
}

/// A project file that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where.
    pub(crate) path: PathBuf,
    project: Project,
}

/// The nearest project file, from this folder upwards.
///
/// # Errors
/// There is one, and it cannot be used.
pub(crate) fn find(folder: &Path) -> Result<Option<Found>, ProjectFileError> {
    for folder in folder.ancestors() {
        let path = folder.join(PROJECT_FILE);
        match File::open(&path) {
            Ok(file) => return read(file, &path).map(|project| Some(Found { path, project })),
            // A folder that may not be looked into has none for us.
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(ProjectFileError::Unreadable { path, source }),
        }
    }
    Ok(None)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read(file: File, path: &Path) -> Result<Project, ProjectFileError> {
    let unreadable = |source| ProjectFileError::Unreadable { path: path.to_owned(), source };
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(ProjectFileError::NotAFile { path: path.to_owned() });
    }
    let own = rustix::process::geteuid().as_raw();
    if ![0, own].contains(&found.uid()) || found.mode() & 0o022 != 0 {
        return Err(ProjectFileError::WritableByOthers { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(PROJECT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > PROJECT_BYTES_MAX {
        return Err(ProjectFileError::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|_| ProjectFileError::NotText { path: path.to_owned() })?;
    Project::parse(&text).map_err(|source| ProjectFileError::Wrong { path: path.to_owned(), source })
}

impl Found {
    /// What it says, in one line.
    pub(crate) fn told(&self) -> String {
        let Project { profile, only, env, prefix, .. } = &self.project;
        let list = |patterns: &Vec<_>| match patterns.is_empty() {
            true => "no secret by its own name".to_owned(),
            false => {
                format!("only {}", patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        let parts = [
            profile.as_ref().map(|profile| format!("profile '{profile}'")),
            only.as_ref().map(list),
            prefix.as_ref().map(|prefix| format!("prefix '{prefix}'")),
            (!env.is_empty()).then(|| env.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
            self.project.has_files().then(|| "files".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("the project file {} says: {}", self.path.display(), parts.join("; "))
    }
}

/// What a command is to be given: what the command line says of something counts, and of the rest what the project says.
///
/// # Errors
/// The project wants files, and the command line variables.
pub(crate) fn wanted(options: &SelectionOptions, found: Option<&Found>) -> Result<Wanted, ProjectFileError> {
    let says_nothing = Project::default();
    let project = found.map_or(&says_nothing, |found| &found.project);
    let only = match (options.none, options.only.as_slice()) {
        (true, _) => Some(Vec::new()),
        (false, []) => project.only.clone(),
        (false, only) => Some(only.to_vec()),
    };
    let named = |variable: &String| options.mappings.iter().any(|mapping| mapping.variable == *variable);
    let of_project = project.env.iter().filter(|(variable, _)| !named(variable));
    let of_project =
        of_project.map(|(variable, name)| Mapping { variable: variable.clone(), name: name.clone() });
    let files = match (&project.files, found) {
        (Some(ProjectFiles::Own(true)), _) => Some(None),
        (Some(ProjectFiles::Folder(folder)), Some(Found { path, .. })) => {
            Some(Some(path.parent().unwrap_or(Path::new("/")).join(folder)))
        }
        _ => None,
    };
    if let (Some(_), Some(Found { path, .. })) = (&files, found) {
        let option = [(!options.mappings.is_empty(), "--env"), (options.prefix.is_some(), "--prefix")];
        if let Some((_, option)) = option.into_iter().find(|(given, _)| *given) {
            return Err(ProjectFileError::FilesAndOption { path: path.clone(), option });
        }
    }
    Ok(Wanted {
        profile: project.profile.clone(),
        selection: only.map_or(Selection::All, Selection::Only),
        mappings: options.mappings.iter().cloned().chain(of_project).collect(),
        prefix: options.prefix.clone().or_else(|| project.prefix.clone()).unwrap_or_default(),
        files,
        project: found.map(|found| found.path.clone()),
    })
}
