//! What people say to the app in words, after `/agent-task` as after a mention: `list`, `show AGENT`, `cancel AGENT`,
//! `help`, and anything else, which asks for an agent. Nothing in here reads or does anything.

use crate::checkpoint::errand::is_telling;
use crate::checkpoint::parse::is_unseen;
use crate::checkpoint::status::distance;
use crate::render::text::plain;

/// The words that we know, and how many words may follow each.
const VERBS: [(&str, usize); 4] = [("list", 0), ("show", 1), ("cancel", 1), ("help", 0)];
/// What others call `cancel`.
const STOP: [&str; 3] = ["stop", "kill", "abort"];
/// What `list` lists without being told.
const LISTED: [&str; 4] = ["all", "agents", "running", "tasks"];

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    List,
    Show(Named),
    Cancel(Named),
    Help,
    /// Something else than was typed, most likely: this.
    Mistyped(String),
    /// This word of ours, or an agent that does all that was said.
    Either(&'static str, String),
    /// An agent that does this.
    Launch(String),
}

/// The agent that somebody names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) agent: String,
    /// All that was said, where it may be a request: the name is of several words that nothing holds together.
    pub(crate) or: Option<String>,
}

/// Reads what somebody said, as Slack sends it: with its three characters escaped, and links and names in `<…>`.
///
/// A word of ours never begins a request unless what follows tells what to do: `list the failing tests`. What is almost one
/// of ours, with no more than that takes, is taken for a mistake: nobody is to be asked to start an agent for `lsit`. Who
/// wants to see an agent or to have it end is understood without quotes as well.
pub(crate) fn read(text: &str) -> Wish {
    let said = spoken(text);
    let words = words(&said).unwrap_or_else(|| said.split_whitespace().map(str::to_owned).collect());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let first = words.first().map(|word| word.to_lowercase()).unwrap_or_default();
    match (first.as_str(), words.get(1..).unwrap_or_default()) {
        ("list", []) => Wish::List,
        ("", _) | ("help" | "?" | "show" | "cancel", []) => Wish::Help,
        ("show", name) => Wish::Show(Named::of(name, &said)),
        ("cancel", name) => Wish::Cancel(Named::of(name, &said)),
        ("list", [what]) if LISTED.contains(&what.to_lowercase().as_str()) => {
            Wish::Mistyped("list".to_owned())
        }
        ("list", rest) if !tells(rest) => Wish::Either("list", said),
        ("help", rest) if !tells(rest) => Wish::Either("help", said),
        (first, rest) => match mistyped(first, rest) {
            Some(verb) => Wish::Mistyped(typed(verb, rest)),
            None => Wish::Launch(said),
        },
    }
}

impl Named {
    fn of(words: &[&str], said: &str) -> Self {
        Self { agent: words.join(" "), or: (words.len() > 1).then(|| said.to_owned()) }
    }
}

/// Whether one of these words tells what an agent is to do.
fn tells(words: &[&str]) -> bool {
    words.iter().any(|word| is_telling(&word.to_lowercase()))
}

/// A word of ours and what follows it, as they are to be typed.
fn typed(verb: &str, rest: &[&str]) -> String {
    let mut words = verb.to_owned();
    for word in rest {
        let is_whole = !word.is_empty() && !word.contains(char::is_whitespace);
        let quote = match word {
            _ if is_whole => "",
            word if word.contains('"') => "'",
            _ => "\"",
        };
        words.push_str(&format!(" {quote}{word}{quote}"));
    }
    words
}

/// The word of ours that somebody meant who typed this one and those after it, if any.
fn mistyped(word: &str, rest: &[&str]) -> Option<&'static str> {
    // `slow tests` are no agent, and what begins with a dash is refused as that.
    if word.starts_with('-') || is_telling(word) || tells(rest) {
        return None;
    }
    let others = rest.len();
    // Who wants an agent to end is not to wait for somebody who approves a new one.
    if others <= 1 && STOP.contains(&word) {
        return Some("cancel");
    }
    let verbs = VERBS.into_iter().filter(|(_, takes)| others == 0 || others == *takes);
    let near = verbs.filter_map(|(verb, _)| {
        // Among short words those that share half their letters are many: a request has two words more often than one.
        let most = if others == 0 { 2 } else { verb.len() / 3 };
        let far = if is_swapped(word, verb) { 1 } else { distance(word, verb) };
        (1..=most).contains(&far).then_some((far, verb))
    });
    near.min().map(|(_, verb)| verb)
}

/// Whether they are the same but for two letters beside each other.
fn is_swapped(word: &str, verb: &str) -> bool {
    let mut differ = word.bytes().zip(verb.bytes()).enumerate().filter(|(_, (a, b))| a != b);
    let (first, second, third) = (differ.next(), differ.next(), differ.next());
    match (first, second, third) {
        (Some((i, (a, b))), Some((j, (c, d))), None) => {
            word.len() == verb.len() && j == i + 1 && a == d && b == c
        }
        _ => false,
    }
}

/// The text as the person sees it, without mentions at its beginning and without what cannot be seen: nobody may approve
/// another text than an agent gets.
fn spoken(text: &str) -> String {
    let mut rest = text.trim_start();
    while let Some((_, after)) = rest.strip_prefix("<@").and_then(|rest| rest.split_once('>')) {
        rest = after.trim_start_matches([':', ',']).trim_start();
    }
    let seen: String = plain(&unwrapped(rest), true).chars().filter(|c| !is_unseen(*c)).collect();
    seen.trim().to_owned()
}

/// Links, names and channels as they are shown: `<https://host|label>`, `<@U1|ana>`, `<#C1|general>`, `<!here>`.
fn unwrapped(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        clean.push_str(&unescaped(before));
        let Some((inner, after)) = after.split_once('>').filter(|(inner, _)| !inner.contains(['<', '\n']))
        else {
            clean.push('<');
            rest = after;
            continue;
        };
        clean.push_str(&reference(inner));
        rest = after;
    }
    clean.push_str(&unescaped(rest));
    clean
}

fn reference(inner: &str) -> String {
    let (target, label) =
        inner.split_once('|').map_or((inner, None), |(target, label)| (target, Some(label)));
    let label = label.filter(|label| !label.is_empty()).map(unescaped);
    match target.as_bytes().first() {
        Some(b'@') => format!("@{}", label.as_deref().unwrap_or(&target[1..]).trim_start_matches('@')),
        Some(b'#') => format!("#{}", label.as_deref().unwrap_or(&target[1..]).trim_start_matches('#')),
        Some(b'!') => format!("@{}", target[1..].split('^').next().unwrap_or_default()),
        // The label of a link is whatever its writer likes. Slack makes links of host names too, and of addresses.
        _ => match &label {
            Some(label)
                if target.split_once(':').is_some_and(|(_, rest)| rest.trim_start_matches('/') == label) =>
            {
                label.clone()
            }
            _ => unescaped(target),
        },
    }
}

fn unescaped(text: &str) -> String {
    // In this order: `&amp;lt;` is what somebody gets who writes `&lt;`.
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// The words, of which one may stand in quotes, also in those that a telephone makes; `None` if a quote stays open.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let closing: &[char] = match first {
            '"' | '“' | '”' | '„' => &['"', '“', '”'],
            '\'' | '‘' | '’' => &['\'', '’'],
            '`' => &['`'],
            _ => &[],
        };
        let (word, after) = if closing.is_empty() {
            rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()))
        } else {
            let inner = &rest[first.len_utf8()..];
            let end = inner.find(closing)?;
            (&inner[..end], inner[end..].trim_start_matches(closing))
        };
        words.push(word.trim().to_owned());
        rest = after.trim_start();
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(agent: &str) -> Wish {
        Wish::Show(named(agent))
    }

    fn named(agent: &str) -> Named {
        Named { agent: agent.to_owned(), or: None }
    }

    fn launch(text: &str) -> Wish {
        Wish::Launch(text.to_owned())
    }

    #[test]
    fn reads_what_people_type() {
        for (text, wish) in [
            ("list", Wish::List),
            ("  LIST  ", Wish::List),
            ("<@U0BOT> list", Wish::List),
            ("<@U0BOT|bot>: <@U0BOT>, List", Wish::List),
            ("\"list\"", Wish::List),
            ("", Wish::Help),
            ("<@U0BOT>", Wish::Help),
            ("\u{200b}", Wish::Help),
            ("help", Wish::Help),
            ("?", Wish::Help),
            ("show", Wish::Help),
            ("cancel ", Wish::Help),
            ("\"\"", Wish::Help),
            ("show deploy-bot", show("deploy-bot")),
            ("Show\u{a0} deploy-bot", show("deploy-bot")),
            ("show “nightly build”", show("nightly build")),
            ("show 'nightly build'", show("nightly build")),
            ("show `deploy-bot`", show("deploy-bot")),
            ("show a&amp;b", show("a&b")),
            ("show <http://build.example.com|build.example.com>", show("build.example.com")),
            ("show <!channel>", show("@channel")),
            ("cancel deploy-bot", Wish::Cancel(named("deploy-bot"))),
            ("cancel &lt;!here&gt;", Wish::Cancel(named("<!here>"))),
        ] {
            assert_eq!(read(text), wish, "{text:?}");
        }
    }

    #[test]
    fn anything_else_asks_for_an_agent() {
        for (text, said) in [
            ("list the failing tests", "list the failing tests"),
            ("help me with the docs", "help me with the docs"),
            ("help with \"the review", "help with \"the review"),
            ("fix the listing", "fix the listing"),
            ("lsit the failing tests", "lsit the failing tests"),
            ("lint", "lint"),
            ("test", "test"),
            ("ship it", "ship it"),
            ("ship", "ship"),
            ("stop the deploys", "stop the deploys"),
            ("kill tests", "kill tests"),
            ("slow tests", "slow tests"),
            ("list tests", "list tests"),
            ("help docs", "help docs"),
            ("candle x", "candle x"),
            ("upgrade", "upgrade"),
            ("--help", "--help"),
            ("fix the \"login test", "fix the \"login test"),
            ("<@U0BOT> fix a &lt; b &amp;&amp; c &amp;lt; d", "fix a < b && c &lt; d"),
            ("look at <https://a.example/x?y=1&amp;z=2>", "look at https://a.example/x?y=1&z=2"),
            ("look at <https://evil.example|https://good.example>", "look at https://evil.example"),
            ("ask <@U1|ana> in <#C1|general> of <#C2>", "ask @ana in #general of #C2"),
            ("mail <mailto:a@b.example|a@b.example>", "mail a@b.example"),
            ("tell <!here> <!subteam^S1|@all>", "tell @here @subteam"),
            ("fix\u{202e} this\u{200b} and\u{1b}[31m that", "fix this and that"),
            ("first\n  second", "first\n  second"),
            ("a < b", "a < b"),
            ("a <b\nc> d", "a <b\nc> d"),
            ("<<@U1>> x", "<@U1> x"),
        ] {
            assert_eq!(read(text), launch(said), "{text:?}");
        }
    }

    #[test]
    fn a_word_of_ours_with_more_behind_it_is_a_name_or_asked_about() {
        let both = |agent: &str, said: &str| Named { agent: agent.to_owned(), or: Some(said.to_owned()) };
        for (text, wish) in [
            ("show my agent", Wish::Show(both("my agent", "show my agent"))),
            ("Show  \"my\"  agent", Wish::Show(both("my agent", "Show  \"my\"  agent"))),
            ("show \"my agent", Wish::Show(both("\"my agent", "show \"my agent"))),
            ("show the failing tests", Wish::Show(both("the failing tests", "show the failing tests"))),
            ("cancel nightly build", Wish::Cancel(both("nightly build", "cancel nightly build"))),
            ("list my agents", Wish::Either("list", "list my agents".to_owned())),
            ("help me", Wish::Either("help", "help me".to_owned())),
        ] {
            assert_eq!(read(text), wish, "{text:?}");
        }
    }

    #[test]
    fn what_is_almost_a_word_of_ours_is_taken_for_a_mistake() {
        for (text, meant) in [
            ("lsit", "list"),
            ("<@U0BOT> lst", "list"),
            ("LITS", "list"),
            ("lists", "list"),
            ("ls", "list"),
            ("hlep", "help"),
            ("hepl", "help"),
            ("shwo", "show"),
            ("cancle", "cancel"),
            ("stop", "cancel"),
            ("stop deploy-bot", "cancel deploy-bot"),
            ("Kill “nightly build”", "cancel \"nightly build\""),
            ("list agents", "list"),
            ("list Running", "list"),
            ("cancl x", "cancel x"),
            ("canecl “nightly build”", "cancel \"nightly build\""),
            ("cancell deploy-bot", "cancel deploy-bot"),
            ("shwo deploy-bot", "show deploy-bot"),
            ("shw deploy-bot", "show deploy-bot"),
        ] {
            assert_eq!(read(text), Wish::Mistyped(meant.to_owned()), "{text:?}");
        }
    }
}
