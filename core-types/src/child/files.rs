//! Which secrets are files, and under which names: their own, `/` between folders. Decides; does nothing.

use std::collections::BTreeMap;

use super::environment::is_wanted;
use crate::protocol::launcher::{LauncherDenial, Run};
use crate::protocol::secrets::NamedSecret;

/// The variable that tells the child where its files lie.
pub const FOLDER_VARIABLE: &str = "PDS_SECRETS_DIR";

/// The secrets that are files.
///
/// # Errors
/// One would be a file and a folder at once.
pub fn files<'a>(run: &Run, secrets: &'a [NamedSecret]) -> Result<Vec<&'a NamedSecret>, LauncherDenial> {
    let wanted = secrets.iter().filter(|secret| is_wanted(run, &secret.name));
    let wanted: BTreeMap<&str, &NamedSecret> = wanted.map(|secret| (secret.name.as_str(), secret)).collect();
    for within in wanted.keys() {
        let above = within.match_indices('/').map(|(end, _)| &within[..end]);
        if let Some(file) = above.into_iter().find(|folder| wanted.contains_key(folder)) {
            return Err(LauncherDenial::FileAndFolder {
                file: file.to_owned(),
                within: (*within).to_owned(),
            });
        }
    }
    Ok(wanted.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SecretName, WireSecret};

    fn secrets(names: &[&str]) -> Vec<NamedSecret> {
        let secret = |name: &&str| NamedSecret {
            name: SecretName::parse(*name).unwrap(),
            value: WireSecret::new(vec![]),
        };
        names.iter().map(secret).collect()
    }

    #[test]
    fn a_name_that_is_a_file_is_no_folder() {
        let fine = secrets(&["a", "a-b", "a.b/c", "b/c", "b/d/e"]);
        assert_eq!(files(&Run::default(), &fine).unwrap().len(), fine.len());
        for (names, file) in [(["a", "a/b"], "a"), (["x/y/z", "x"], "x"), (["x/y/z", "x/y"], "x/y")] {
            let denial = files(&Run::default(), &secrets(&names)).unwrap_err();
            assert!(matches!(denial, LauncherDenial::FileAndFolder { file: found, .. } if found == file));
        }
    }
}
