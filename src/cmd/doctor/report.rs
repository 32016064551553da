//! What `doctor` found, and how it is shown.

use serde_json::{Value, json};

use crate::config::Config;
use crate::ui::{Tone, Ui};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    /// Works, but deserves a look.
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) message: String,
    /// How to mend it.
    pub(super) hint: Option<String>,
}

/// The checks made so far.
#[derive(Debug, Default)]
pub(super) struct Report(pub(super) Vec<Check>);

impl Report {
    pub(super) fn ok(&mut self, name: &'static str, message: impl Into<String>) {
        self.add(name, Verdict::Ok, message, None);
    }

    pub(super) fn warn(&mut self, name: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(name, Verdict::Warn, message, Some(hint.into()));
    }

    pub(super) fn fail(&mut self, name: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(name, Verdict::Fail, message, Some(hint.into()));
    }

    pub(super) fn add(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.0.push(Check { name, verdict, message: message.into(), hint });
    }

    pub(super) fn failed(&self) -> bool {
        self.0.iter().any(|check| check.verdict == Verdict::Fail)
    }
}

pub(super) fn as_json(report: &Report, config: &Config) -> Value {
    let checks: Vec<Value> = report
        .0
        .iter()
        .map(|check| {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "fail",
            };
            json!({ "check": check.name, "verdict": verdict, "message": mask(config, &check.message), "hint": check.hint })
        })
        .collect();
    let settings: Vec<Value> = config
        .settings()
        .iter()
        .map(|(name, value, origin)| json!({ "setting": name, "value": mask(config, value), "origin": origin.to_string() }))
        .collect();
    json!({ "ok": !report.failed(), "checks": checks, "settings": settings })
}

pub(super) fn page(report: &Report, config: &Config, ui: &Ui) -> String {
    let mut lines = Vec::new();
    for (name, value, origin) in &config.settings() {
        lines.push(format!(
            "{} {} {}",
            ui.tint(Tone::Dim, &format!("{name:<22}")),
            mask(config, value),
            ui.tint(Tone::Dim, &format!("({origin})"))
        ));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    for check in &report.0 {
        let (tone, sign) = match check.verdict {
            Verdict::Ok => (Tone::Good, "ok  "),
            Verdict::Warn => (Tone::Warn, "warn"),
            Verdict::Fail => (Tone::Bad, "FAIL"),
        };
        lines.push(format!("{} {:<12} {}", ui.tint(tone, sign), check.name, mask(config, &check.message)));
        lines.extend(
            check.hint.iter().map(|hint| format!("{:17} {} {hint}", "", ui.tint(Tone::Dim, "hint:"))),
        );
    }
    lines.join("\n")
}

/// A report is pasted into issues and chats.
fn mask(config: &Config, text: &str) -> String {
    config.masker().mask(text)
}
