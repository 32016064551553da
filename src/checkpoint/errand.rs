//! What a request for an agent is about, by its words: its kind, and the repository that it names.

/// What an agent is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Test,
    Refactor,
    Docs,
    Fix,
    Review,
    Analyze,
    Build,
    Deploy,
}

/// The words by which each kind is known.
const WORDS: &[(Kind, &[&str])] = &[
    (Kind::Test, &["test", "tests", "testing", "coverage", "flaky"]),
    (
        Kind::Refactor,
        &["refactor", "refactoring", "restructure", "rewrite", "rename", "simplify", "clean", "cleanup"],
    ),
    (Kind::Docs, &["doc", "docs", "document", "documentation", "readme", "changelog"]),
    (Kind::Fix, &["fix", "fixes", "bug", "bugs", "repair", "debug", "broken", "crash", "hotfix", "lint"]),
    (Kind::Review, &["review", "reviews", "audit", "critique"]),
    (
        Kind::Analyze,
        &[
            "analyze",
            "analyse",
            "analysis",
            "investigate",
            "explain",
            "research",
            "profile",
            "list",
            "show",
            "why",
            "find",
        ],
    ),
    (Kind::Build, &["build", "builds", "compile", "implement", "add", "create", "write", "make"]),
    (Kind::Deploy, &["deploy", "deployment", "release", "ship", "rollout", "rollback", "publish"]),
];
/// Words that say little where another kind is named as well: `write docs`, `find the bug`, `add a test`.
const VAGUE: &[&str] = &["add", "create", "write", "make", "find", "list", "show", "why"];

/// Whether a word, in lower case, names a kind of request.
pub(crate) fn is_telling(word: &str) -> bool {
    WORDS.iter().any(|(_, words)| words.contains(&word))
}

impl Kind {
    /// As it stands in messages, and as the task's type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Refactor => "refactor",
            Self::Docs => "docs",
            Self::Fix => "fix",
            Self::Review => "review",
            Self::Analyze => "analyze",
            Self::Build => "build",
            Self::Deploy => "deploy",
        }
    }

    /// The kind that the first telling word names; to look into something where none does.
    pub(crate) fn of(text: &str) -> Self {
        let mut vague = None;
        for word in text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase) {
            let known = WORDS.iter().find(|(_, words)| words.contains(&word.as_str()));
            match known {
                Some((kind, _)) if VAGUE.contains(&word.as_str()) => vague = vague.or(Some(*kind)),
                Some((kind, _)) => return *kind,
                None => {}
            }
        }
        vague.unwrap_or(Self::Analyze)
    }
}

/// Where code is kept that a link leads to.
const FORGES: &[&str] = &["github.com/", "gitlab.com/", "bitbucket.org/", "codeberg.org/"];

/// The repository that a text names: by a link, or as `repo:NAME`.
pub(crate) fn repo(text: &str) -> Option<String> {
    let is_name = |name: &str| {
        !matches!(name, "" | "." | "..")
            && name.len() <= 100
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    text.split_whitespace().find_map(|word| {
        let word = word.trim_matches(|c: char| "()[]\"'`,;.!?".contains(c));
        if let Some(name) = word.strip_prefix("repo:").or_else(|| word.strip_prefix("repo=")) {
            return name.split('/').all(is_name).then(|| name.to_owned());
        }
        let path = FORGES.iter().find_map(|forge| word.strip_prefix("https://")?.strip_prefix(forge))?;
        let mut parts = path.split(['/', '#', '?']);
        let (owner, name) = (parts.next()?, parts.next()?.trim_end_matches(".git"));
        (is_name(owner) && is_name(name)).then(|| format!("{owner}/{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_telling_word_names_the_kind() {
        for (text, kind) in [
            ("run the tests", Kind::Test),
            ("add a test for the parser", Kind::Test),
            ("Fix the failing tests", Kind::Fix),
            ("find the bug in login", Kind::Fix),
            ("rename Config to Settings", Kind::Refactor),
            ("please write docs for the build", Kind::Docs),
            ("update README.md", Kind::Docs),
            ("review the deploy script", Kind::Review),
            ("why is it slow?", Kind::Analyze),
            ("list the open issues", Kind::Analyze),
            ("DEPLOY v2 to production", Kind::Deploy),
            ("ship it", Kind::Deploy),
            ("implement dark mode", Kind::Build),
            ("add dark mode", Kind::Build),
            ("do something", Kind::Analyze),
            ("", Kind::Analyze),
            ("attest the latest contest", Kind::Analyze),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }

    #[test]
    fn a_repository_is_named_by_a_link_or_as_such() {
        for (text, found) in [
            ("fix repo:acme/rocket now", Some("acme/rocket")),
            ("fix (repo=rocket).", Some("rocket")),
            ("look at https://github.com/acme/rocket/issues/7", Some("acme/rocket")),
            ("clone https://gitlab.com/acme/rocket.git", Some("acme/rocket")),
            ("see https://github.com/acme", None),
            ("see https://evil.example/github.com/acme/rocket", None),
            ("fix src/main.rs and/or tests", None),
            ("repo:../../etc", None),
            ("repo:a;b", None),
            ("repo:", None),
        ] {
            assert_eq!(repo(text).as_deref(), found, "{text}");
        }
    }
}
