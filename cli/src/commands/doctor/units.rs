//! The daemons as units of the user's systemd, where there is one.

use super::{Facts, Finding, problem};
use crate::units::{self, Installation, UnitState};

/// The units are whole, known to systemd as they are on the disk, and none has failed.
pub(super) fn units(facts: &Facts) -> Finding {
    match &facts.units {
        Installation::NoManager => {
            Finding::Good("there is no systemd of the user here, so pds starts its daemons itself".to_owned())
        }
        Installation::NotInstalled => Finding::Note(
            "systemd runs and has no units of pds, so pds starts its daemons itself; `make install` installs them"
                .to_owned(),
        ),
        Installation::Elsewhere => Finding::Note(
            "variables like PDS_DATA_DIR give pds other folders than systemd would, so its units are left alone"
                .to_owned(),
        ),
        Installation::Unknown => Finding::Unknown("systemctl does not answer".to_owned()),
        Installation::Units(units) => judge(units),
    }
}

fn judge(all: &[UnitState]) -> Finding {
    let named = |wanted: &dyn Fn(&UnitState) -> bool| {
        let found: Vec<&str> =
            all.iter().filter(|unit| wanted(unit)).map(|unit| unit.name.as_str()).collect();
        (!found.is_empty()).then(|| found.join(", "))
    };
    if let Some(missing) = named(&|unit| unit.load != "loaded") {
        return problem(format!("missing or broken: {missing}"), "run `make install` once more");
    }
    if let Some(old) = named(&|unit| unit.needs_reload) {
        return problem(
            format!("changed on the disk since systemd read them: {old}"),
            "run `systemctl --user daemon-reload`, then `pds daemon restart`, which locks all profiles",
        );
    }
    if let Some(failed) = named(&|unit| unit.active == "failed") {
        return problem(
            format!("failed: {failed}"),
            "`journalctl --user -u 'pds*'` has the reason; then `systemctl --user reset-failed 'pds*'` and `pds daemon start`",
        );
    }
    match all.iter().any(|unit| unit.name == units::TARGET && unit.enabled) {
        true => Finding::Good("installed, and started at login".to_owned()),
        false => Finding::Good(
            "installed; the first command starts them, and `systemctl --user enable pds.target pds-bus.socket` every login"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> UnitState {
        UnitState {
            name: name.to_owned(),
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            enabled: true,
            needs_reload: false,
        }
    }

    #[test]
    fn each_fault_of_a_unit_is_named_with_what_mends_it() {
        let whole = [unit(units::TARGET), unit("pds-bus.service")];
        assert!(matches!(judge(&whole), Finding::Good(_)));
        let spoilt = |spoil: &dyn Fn(&mut UnitState)| {
            let mut units = whole.clone();
            spoil(&mut units[1]);
            match judge(&units) {
                Finding::Problem { found, next } if found.contains("pds-bus.service") => (found, next),
                other => panic!("{other:?}"),
            }
        };
        assert!(spoilt(&|unit| unit.load = "not-found".to_owned()).1.contains("make install"));
        assert!(spoilt(&|unit| unit.needs_reload = true).1.contains("daemon-reload"));
        assert!(spoilt(&|unit| unit.active = "failed".to_owned()).1.contains("reset-failed"));
    }
}
