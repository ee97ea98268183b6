//! Finds what looks like a token by the shape that its issuer gives it.
//!
//! Only shapes that chance hardly makes: a prefix of the issuer's, a length and an alphabet. Sources: AWS IAM "unique
//! identifiers", GitHub "token prefixes", GitLab "token overview", Slack "token types", Stripe "API keys", npm "access
//! tokens", PyPI "API tokens" (macaroons whose base64 begins so), Google Cloud "API keys", RFC 7519 (JWT), RFC 7468 (PEM).

use regex::bytes::{Regex, RegexSet};

/// What each is called, and its shape.
const SHAPES: [(&str, &str); 16] = [
    ("AWS access key", r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    ("GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{36,251}\b"),
    ("GitHub token", r"\bgithub_pat_[A-Za-z0-9_]{82}\b"),
    ("GitLab token", r"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_-]{20,}"),
    ("Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}\b"),
    ("Slack token", r"\bxapp-[0-9]-[A-Z0-9]{8,}-[0-9]+-[a-f0-9]{20,}\b"),
    ("Slack webhook", r"https://hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}"),
    ("Stripe key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{20,247}\b"),
    ("npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("PyPI token", r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}"),
    ("crates.io token", r"\bcio[A-Za-z0-9]{32}\b"),
    ("Google API key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("OpenAI key", r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}"),
    ("Anthropic key", r"\bsk-ant-[a-z0-9]+-[A-Za-z0-9_-]{80,}"),
    ("JSON Web Token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"),
    ("private key", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s+[A-Za-z0-9+/]"),
];

/// All shapes, and each by itself.
pub(super) struct Shapes {
    any: Option<Regex>,
    which: Option<RegexSet>,
}

impl Shapes {
    /// The shapes, ready to be looked for.
    pub(super) fn new() -> Self {
        let all: Vec<&str> = SHAPES.iter().map(|(_, shape)| *shape).collect();
        // Without Unicode: what is looked for is ASCII, in bytes that may be no text.
        let any = Regex::new(&format!("(?-u:{})", all.join("|"))).ok();
        let which = RegexSet::new(all.iter().map(|shape| format!("^(?-u:{shape})"))).ok();
        Self { any, which }
    }

    /// Where tokens begin in `text`, and of which kind each is.
    pub(super) fn find(&self, text: &[u8]) -> Vec<(usize, String)> {
        let (Some(any), Some(which)) = (&self.any, &self.which) else { return Vec::new() };
        let kind =
            |token: &[u8]| which.matches(token).iter().next().map_or("token", |number| SHAPES[number].0);
        any.find_iter(text).map(|token| (token.start(), kind(token.as_bytes()).to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put together from pieces, so that this file is not found by those who look for tokens.
    fn samples() -> Vec<(&'static str, String)> {
        let x = |count: usize| "aB3".repeat(count)[..count].to_owned();
        vec![
            ("AWS access key", format!("AKIA{}", "IOSFODNN7EXAMPLE")),
            ("GitHub token", format!("ghp_{}", x(36))),
            ("GitHub token", format!("github_{}_{}", "pat", x(82))),
            ("GitLab token", format!("glpat-{}", x(20))),
            ("Slack token", format!("xoxb-{}", x(30))),
            ("Slack token", format!("xapp-1-{}-123-{}", "A0123456789", "0f".repeat(16))),
            ("Slack webhook", format!("https://hooks.slack.com/services/T{0}/B{0}/{1}", "ABCDEFGH1", x(24))),
            ("Stripe key", format!("sk_live_{}", x(24))),
            ("npm token", format!("npm_{}", x(36))),
            ("PyPI token", format!("pypi-AgEIcHlwaS5vcmc{}", x(80))),
            ("crates.io token", format!("cio{}", x(32))),
            ("Google API key", format!("AIza{}", x(35))),
            ("OpenAI key", format!("sk-proj-{}", x(48))),
            ("Anthropic key", format!("sk-ant-api03-{}", x(93))),
            ("JSON Web Token", format!("eyJ{}.eyJ{}.{}", x(20), x(20), x(43))),
            ("private key", format!("-----BEGIN OPENSSH {}-----\nb3BlbnNza", "PRIVATE KEY")),
        ]
    }

    #[test]
    fn each_shape_is_found_by_its_name_and_compiles() {
        let shapes = Shapes::new();
        let samples = samples();
        assert_eq!(samples.len(), SHAPES.len());
        for (name, token) in samples {
            for text in [format!("{token}\n"), format!("x = \"{token}\";"), format!("\u{fffd}\0 {token}")] {
                let found = shapes.find(text.as_bytes());
                assert_eq!(found.iter().map(|(_, kind)| kind.as_str()).collect::<Vec<_>>(), [name]);
                assert_eq!(found[0].0, text.find(&token).unwrap());
            }
        }
    }

    #[test]
    fn what_only_begins_like_a_token_is_none() {
        let shapes = Shapes::new();
        for text in [
            "AKIA",
            "AKIAIOSFODNN7EXAMPL",
            "xAKIAIOSFODNN7EXAMPLE",
            "ghp_short",
            "npm_install",
            "eyJhbGciOi",
            "-----BEGIN PUBLIC KEY-----\nA",
            "-----BEGIN PRIVATE KEY-----",
            "sk_live_",
        ] {
            assert!(shapes.find(text.as_bytes()).is_empty(), "{text}");
        }
    }
}
