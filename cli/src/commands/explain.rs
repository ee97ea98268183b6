//! `pds explain`: which gate would say what of an attempt, and why. Nothing is read and no token is spent.

use core_types::access::AccessOperation;
use core_types::protocol::explanation::{Decision, Explain, Explanation, GateVerdict, Verdict};
use core_types::protocol::secrets::Gate;
use core_types::rule_book::{CitedRule, RuleKey};
use serde::Serialize;

use super::grant;
use crate::args::ExplainOptions;
use crate::error::Failure;
use crate::output::shown;
use crate::session::Session;

/// `pds explain --json`.
#[derive(Serialize)]
struct Shown<'a> {
    profile: &'a str,
    name: &'a str,
    operation: &'static str,
    requester: &'a str,
    /// `allowed`, `denied` or `hidden`.
    decision: &'static str,
    /// The first gate that denies.
    gate: Option<&'static str>,
    gates: Vec<ShownGate>,
    rule: Option<ShownRule<'a>>,
    grant: Option<grant::Shown>,
}

/// A gate of `pds explain --json`.
#[derive(Serialize)]
struct ShownGate {
    gate: &'static str,
    /// `passes`, `denies`, `not-asked` or `not-told`.
    verdict: String,
    reason: Option<String>,
}

/// The rule that decides, of `pds explain --json`.
#[derive(Serialize)]
struct ShownRule<'a> {
    file: String,
    requester: &'a str,
    /// The key in the requester's table, where one decides.
    key: Option<&'static str>,
    pattern: Option<&'a str>,
    told: String,
}

pub(super) fn run(session: &mut Session, options: &ExplainOptions) -> Result<(), Failure> {
    let profile = session.profile()?;
    let call = Explain {
        profile,
        name: options.name.clone(),
        requester: options.requester.clone(),
        operation: options.operation.into(),
    };
    let explanation = session.call(&call)?;
    if session.output.wants_json() {
        let object = shown_whole(session, &call, &explanation);
        return session.output.object(&object);
    }
    for GateVerdict { gate, verdict } in &explanation.gates {
        let (word, reason) = told(verdict);
        let reason = reason.map(|reason| format!(": {}", shown(&reason))).unwrap_or_default();
        session.output.line(format_args!("{:<4}{:<16}{word}{reason}", number(*gate), gate.as_str()))?;
        if let (Gate::AccessRule, Some(rule)) = (gate, &explanation.rule) {
            let file = session.paths.config_file();
            let told = shown(&rule.told(call.profile.as_str()));
            session.output.line(format_args!("{:<20}{told} ({})", "", shown(&file.to_string_lossy())))?;
            if let Some(grant) = &explanation.grant {
                session.output.line(format_args!("{:<20}grant {}", "", grant::told(grant)))?;
            }
        }
    }
    let sentence = sentence(&call, &explanation);
    session.output.line(sentence)
}

/// The number of a gate in the documentation.
fn number(gate: Gate) -> &'static str {
    match gate {
        Gate::Lock => "1",
        Gate::ActiveProfile => "2",
        Gate::Identity => "3",
        Gate::RateLimit => "4",
        Gate::AccessRule => "5",
        Gate::Name => "5.5",
        Gate::Vault => "6",
    }
}

fn told(verdict: &Verdict) -> (&'static str, Option<String>) {
    match verdict {
        Verdict::Passes => ("passes", None),
        Verdict::Denies(denial) => ("denies", Some(denial.to_string())),
        Verdict::NotAsked => ("not asked", None),
        Verdict::NotTold => ("not told", Some("you cannot list the name".to_owned())),
    }
}

fn sentence(call: &Explain, explanation: &Explanation) -> String {
    let Explain { profile, name, operation, .. } = call;
    let (who, what) = (shown(&explanation.requester), operation.as_str());
    let name = shown(name);
    match explanation.decision {
        Decision::Allowed => format!("allowed: {who} may {what} '{name}' of profile '{profile}'"),
        Decision::Hidden => format!("hidden: {who} may list profile '{profile}', and '{name}' is not shown"),
        Decision::Denied(gate) => {
            format!("denied by {}: {who} may not {what} '{name}' of profile '{profile}' now", gate.as_str())
        }
    }
}

fn shown_whole<'a>(session: &Session, call: &'a Explain, explanation: &'a Explanation) -> Shown<'a> {
    let (decision, gate) = match explanation.decision {
        Decision::Allowed => ("allowed", None),
        Decision::Hidden => ("hidden", None),
        Decision::Denied(gate) => ("denied", Some(gate.as_str())),
    };
    let gates = explanation.gates.iter().map(|GateVerdict { gate, verdict }| {
        let (word, reason) = told(verdict);
        ShownGate { gate: gate.as_str(), verdict: word.replace(' ', "-"), reason }
    });
    let rule = explanation.rule.as_ref().map(|rule| ShownRule {
        file: session.paths.config_file().to_string_lossy().into_owned(),
        requester: &rule.requester,
        key: key(rule),
        pattern: rule.pattern.as_ref().map(|pattern| pattern.as_str()),
        told: rule.told(call.profile.as_str()),
    });
    Shown {
        profile: call.profile.as_str(),
        name: &call.name,
        operation: call.operation.as_str(),
        requester: &explanation.requester,
        decision,
        gate,
        gates: gates.collect(),
        rule,
        grant: explanation.grant.as_ref().map(grant::shown),
    }
}

fn key(rule: &CitedRule) -> Option<&'static str> {
    match rule.key {
        RuleKey::Deny => Some("deny"),
        RuleKey::Listed(operation) | RuleKey::NotListed(operation) => {
            Some(AccessOperation::as_str(operation))
        }
        RuleKey::OtherPrograms => Some("run"),
        RuleKey::NoTable | RuleKey::Never => None,
    }
}
