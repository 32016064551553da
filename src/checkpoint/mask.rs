//! Masks text that looks like a credential before it is stored or sent.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use regex_lite::Regex;

/// What stands where a credential stood.
pub(crate) const MASK: &str = "[masked]";

/// Settings shorter than this are not looked for: they would mask ordinary words.
const OWN_SECRET_MIN: usize = 6;

/// A well-known shape of credential.
struct Shape {
    /// One of these must occur before the pattern is worth compiling.
    signs: &'static [&'static str],
    pattern: &'static str,
    /// The replacement, with `$1` for what is kept in front.
    replacement: &'static str,
}

/// The shapes, each after its vendor's description of the token.
const SHAPES: &[Shape] = &[
    // Private keys come first: their body could match a later shape only in part.
    Shape {
        signs: &["PRIVATE KEY"],
        pattern: r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|$)",
        replacement: MASK,
    },
    // The end of one, as the last lines of a log have it.
    Shape {
        signs: &["PRIVATE KEY"],
        pattern: r"(?m)(?:^[ \t]*[A-Za-z0-9+/=]+[ \t]*\r?\n)*[ \t]*-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
        replacement: MASK,
    },
    // Slack: bot, user, app-level, workflow, refresh and rotated tokens, and the URLs that are secrets themselves.
    Shape {
        signs: &["xox", "xapp-", "xwfp-"],
        pattern: r"(?:xox[a-z](?:\.xox[a-z])?|xapp|xwfp)-[A-Za-z0-9-]{8,}",
        replacement: MASK,
    },
    Shape {
        signs: &["hooks.slack"],
        pattern: r"(hooks\.slack(?:-gov)?\.com/(?:services|triggers|workflows)/)[A-Za-z0-9/_-]+",
        replacement: "$1[masked]",
    },
    Shape {
        signs: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        pattern: r"gh[pousr]_[A-Za-z0-9]{20,}",
        replacement: MASK,
    },
    Shape { signs: &["github_pat_"], pattern: r"github_pat_[A-Za-z0-9_]{20,}", replacement: MASK },
    Shape {
        signs: &[
            "glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glsoat-", "glagent-", "glimt-",
            "gloas-",
        ],
        pattern: r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|imt|oas)-[A-Za-z0-9_.-]{16,}",
        replacement: MASK,
    },
    Shape {
        signs: &["AKIA", "ASIA", "ABIA", "ACCA"],
        pattern: r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
        replacement: MASK,
    },
    Shape {
        signs: &["ecret", "ECRET"],
        pattern: r#"(?i)(secret_?access_?key["']?\s*[=:]\s*["']?)[A-Za-z0-9/+=]{30,}"#,
        replacement: "$1[masked]",
    },
    // OpenAI and Anthropic (`sk-ant-…`) keys.
    Shape { signs: &["sk-"], pattern: r"sk-[A-Za-z0-9_-]{16,}", replacement: MASK },
    Shape {
        signs: &["eyJ"],
        pattern: r"eyJ[A-Za-z0-9_-]{6,}\.eyJ[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*",
        replacement: MASK,
    },
    Shape {
        signs: &["://"],
        pattern: r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@?#]*:)[^\s/?#]+@",
        replacement: "$1[masked]@",
    },
];

/// The shapes' patterns, as far as they were needed.
static COMPILED: [OnceLock<Regex>; SHAPES.len()] = [const { OnceLock::new() }; SHAPES.len()];

/// Masks our own secrets and the well-known shapes in texts.
#[derive(Clone, Default)]
pub(crate) struct Masker {
    own: Vec<String>,
}

impl Masker {
    /// A masker that knows these values, such as the configured token, beside the well-known shapes.
    pub(crate) fn new<'a>(own: impl IntoIterator<Item = &'a str>) -> Self {
        Self::of(own.into_iter().map(str::to_owned).collect())
    }

    fn of(mut own: Vec<String>) -> Self {
        own.retain(|secret| secret.len() >= OWN_SECRET_MIN);
        // The longest first, so that one secret inside another leaves no rest behind.
        own.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { own }
    }

    /// The text with every credential replaced.
    pub(crate) fn mask(&self, text: &str) -> String {
        self.mask_after("", text)
    }

    /// The same for a text with what came before it: a credential that begins there is replaced as well.
    pub(crate) fn mask_after(&self, before: &str, text: &str) -> String {
        let mut from = before.len();
        let mut text = if from == 0 { Cow::Borrowed(text) } else { Cow::Owned([before, text].concat()) };
        for secret in &self.own {
            if text.contains(secret.as_str()) {
                let found = text.match_indices(secret.as_str());
                let found = found.map(|(start, secret)| (start..start + secret.len(), MASK.to_owned()));
                text = Cow::Owned(replaced(&text, &mut from, found));
            }
        }
        for (shape, compiled) in SHAPES.iter().zip(&COMPILED) {
            if !shape.signs.iter().any(|sign| text.contains(sign)) {
                continue;
            }
            // Compiled only where a sign occurs: most texts hold none, and compiling would cost more than the rest.
            let pattern = compiled
                .get_or_init(|| Regex::new(shape.pattern).expect("a constant pattern, compiled by a test"));
            if pattern.is_match(&text) {
                let found = pattern.captures_iter(&text).map(|captures| {
                    let mut masked = String::new();
                    captures.expand(shape.replacement, &mut masked);
                    (captures.get(0).map_or(0..0, |all| all.range()), masked)
                });
                text = Cow::Owned(replaced(&text, &mut from, found));
            }
        }
        match from {
            0 => text.into_owned(),
            _ => text[from..].to_owned(),
        }
    }
}

/// The text with some parts replaced. A place in it stays where it was; one within a part goes to where that begins.
fn replaced(text: &str, place: &mut usize, parts: impl Iterator<Item = (Range<usize>, String)>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut done = 0;
    let mut moved = *place;
    for (part, by) in parts {
        result.push_str(&text[done..part.start]);
        if part.end <= *place {
            moved = result.len() + by.len() + (*place - part.end);
        } else if part.start < *place {
            moved = result.len();
        }
        result.push_str(&by);
        done = part.end;
    }
    result.push_str(&text[done..]);
    *place = moved;
    result
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(text: &str) -> String {
        Masker::new([]).mask(text)
    }

    #[test]
    fn masks_the_well_known_shapes() {
        // Written in two halves, so that scanners do not take this file for a leak.
        for (head, tail) in [
            ("xoxb-", "123456789012-123456789012-AbCdEfGhIjKl"),
            ("xoxe.xoxp-", "1-Mi0yLTEyMzQ1Njc4OTAx"),
            ("xapp-", "1-A0123456789-1234567890-abcdef"),
            ("ghp_", "abcdefghijklmnopqrstuvwxyz0123456789"),
            ("github_pat_", "11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz"),
            ("glpat-", "abcdefghij0123456789"),
            ("AKIA", "ABCDEFGHIJKLMNOP"),
            ("sk-", "proj-abcdefghijklmnopqrstuvwxyz"),
            ("sk-ant-", "api03-abcdefghijklmnopqrstuvwxyz"),
            ("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
        ] {
            let secret = format!("{head}{tail}");
            assert_eq!(masked(&format!("key={secret} end")), "key=[masked] end", "{secret}");
        }
    }

    #[test]
    fn masks_key_blocks_whole_even_when_cut_off() {
        let head = "-----BEGIN RSA PRIVATE KEY-----";
        assert_eq!(masked(&format!("a\n{head}\nMIIE\n-----END RSA PRIVATE KEY-----\nb")), "a\n[masked]\nb");
        assert_eq!(masked(&format!("a\n{head}\nMIIE")), "a\n[masked]");
        let end = "-----END RSA PRIVATE KEY-----";
        assert_eq!(masked(&format!("a b\nMIIE+/\r\n  Qw==\n{end}\nb")), "a b\n[masked]\nb");
        assert_eq!(
            masked(&format!("a\n{head}\nMIIE\n{end}\nof it\nMIIE\n{end}")),
            "a\n[masked]\nof it\n[masked]"
        );
    }

    #[test]
    fn masks_only_the_secret_part_of_a_url() {
        assert_eq!(masked("postgres://ana:s3cret@db/x"), "postgres://ana:[masked]@db/x");
        assert_eq!(masked("postgres://ana:s3@cret@db/x"), "postgres://ana:[masked]@db/x");
        assert_eq!(
            masked("https://hooks.slack.com/services/T000/B000/XXXX"),
            "https://hooks.slack.com/services/[masked]"
        );
        for harmless in
            ["https://example.com:8080/a@b", "mailto:ana@example.com", "see https://example.com/x?y=1"]
        {
            assert_eq!(masked(harmless), harmless);
        }
    }

    #[test]
    fn masks_our_own_settings_longest_first() {
        let masker = Masker::new(["hunter2", "hunter2-longer", "abc"]);
        assert_eq!(masker.mask("hunter2-longer hunter2 abc"), "[masked] [masked] abc");
    }

    #[test]
    fn masks_what_begins_before_the_text() {
        let masker = Masker::new(["hunter2-long", "other-secret"]);
        let token = ["ghp_", "abcdefghijklmnopqrstuvwxyz0123456789"].concat();
        let texts = [
            format!("other-secret a {token} b hunter2-long c hunter2-long d {token} e"),
            "x -----BEGIN PRIVATE KEY-----\nMIIE\nMIIE\n-----END PRIVATE KEY-----\nb".to_owned(),
            "psql postgres://ana:s3cret@db/x other-secret".to_owned(),
        ];
        for text in texts {
            let whole = masker.mask(&text);
            for at in 0..=text.len() {
                let rest = masker.mask_after(&text[..at], &text[at..]);
                assert!(whole.ends_with(&rest), "{rest}");
                // Nothing is lost: it begins where the text does, or with a mask that covers that place.
                let before = masker.mask(&text[..at]);
                assert!(whole == format!("{before}{rest}") || rest.contains(MASK), "{before} | {rest}");
            }
        }
        assert_eq!(masker.mask_after("a hunter2-", "long b"), "[masked] b");
        assert_eq!(masker.mask_after("hunter2-long a ", "b other-secret"), "b [masked]");
        assert_eq!(masker.mask_after("https://ana:pass", "word@db/x"), "https://ana:[masked]@db/x");
    }

    #[test]
    fn every_shape_compiles_and_masks_twice_to_the_same() {
        for shape in SHAPES {
            Regex::new(shape.pattern).expect(shape.pattern);
        }
        let once = masked("postgres://ana:s3cret@db/x");
        assert_eq!(masked(&once), once);
    }

    #[test]
    fn masks_every_spelling_of_a_shape() {
        let filler = |length: usize| "Ab1".repeat(length).chars().take(length).collect::<String>();
        // (what stays in front, how the credential begins, how long the rest is)
        for (before, head, rest) in [
            ("", "xoxp-", 24),
            ("", "xoxe-", 24),
            ("", "xwfp-", 24),
            ("", "gho_", 36),
            ("", "ghu_", 36),
            ("", "ghs_", 36),
            ("", "ghr_", 36),
            ("", "gldt-", 20),
            ("", "glrt-", 20),
            ("https://hooks.slack-gov.com/services/", "", 30),
            ("https://hooks.slack.com/triggers/", "", 30),
            ("AWS_SECRET_ACCESS_KEY=", "", 40),
            ("aws_secret_access_key = ", "", 40),
            ("\"SecretAccessKey\": \"", "", 40),
            ("awsSecretAccessKey: ", "", 40),
        ] {
            let text = format!("{before}{head}{} end", filler(rest));
            assert_eq!(masked(&text), format!("{before}[masked] end"), "{text}");
        }
        assert_eq!(masked("redis://:hunter2@cache/0"), "redis://:[masked]@cache/0");
        let block = "-----BEGIN PGP PRIVATE KEY BLOCK-----\nabc\n-----END PGP PRIVATE KEY BLOCK-----";
        assert_eq!(masked(&format!("{block}\n{block}")), "[masked]\n[masked]");
    }

    /// Texts with credentials of every kind between other words.
    fn texts() -> impl Strategy<Value = String> {
        let shapes: Vec<&str> = SHAPES.iter().flat_map(|shape| shape.signs).copied().collect();
        let bits = prop_oneof![
            proptest::sample::select(shapes).prop_map(str::to_owned),
            Just("-----BEGIN PRIVATE KEY-----".to_owned()),
            Just("aws_secret_access_key=".to_owned()),
            Just("hooks.slack.com/services/".to_owned()),
            Just("postgres://ana:".to_owned()),
            Just("@".to_owned()),
            Just("eyJhbGciOi.eyJzdWIi.".to_owned()),
            Just(MASK.to_owned()),
            "[A-Za-z0-9]{16,40}",
            "[ -~]{0,12}",
            "\\PC{0,12}",
        ];
        proptest::collection::vec(bits, 0..12).prop_map(|bits| bits.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn masking_twice_changes_no_more(text in texts(), own in proptest::collection::vec("[A-Z0-9/.]{6,20}", 0..3)) {
            let masker = Masker::new(own.iter().map(String::as_str));
            let once = masker.mask(&text);
            prop_assert_eq!(masker.mask(&once), once);
        }

        #[test]
        fn no_secret_of_ours_survives(
            texts in proptest::collection::vec(texts(), 1..5),
            own in proptest::collection::vec("[A-Z0-9/.?+*()$]{6,20}", 1..4),
        ) {
            let masker = Masker::new(own.iter().map(String::as_str));
            // Side by side, inside one another and at both ends.
            let text = texts.iter().fold(own.concat(), |text, more| {
                let at = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
                format!("{}{}{more}{}", &text[..at], own.join(more), &text[at..])
            });
            let masked = masker.mask(&text);
            for secret in own.iter().filter(|secret| !MASK.contains(secret.as_str())) {
                prop_assert!(!masked.contains(secret.as_str()), "{secret} in {masked}");
            }
        }

        #[test]
        fn a_text_without_signs_is_left_as_it_is(text in "\\PC{0,200}") {
            let harmless = SHAPES.iter().all(|shape| !shape.signs.iter().any(|sign| text.contains(sign)));
            prop_assume!(harmless);
            prop_assert_eq!(masked(&text), text);
        }
    }
}
