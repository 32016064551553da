//! Handing a task's thread on to later jobs of a CI run, which have another machine and another cache: by the files that
//! the CI system carries values in.
//!
//! These files are somebody else's, and a line in the wrong place fails the whole job. So nothing is written unless it
//! is known to be understood, and nothing that stands there is touched.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::receipt::Receipt;
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::parse;
use crate::config::{Config, Handover};
use crate::exit::cause;
use crate::ui::Ui;

/// The largest file that is looked at, in bytes: as much as GitHub takes of a job's outputs.
const FILE_MAX: u64 = 1024 * 1024;

/// Writes down where the task's thread is, if that is known and somebody wants to know. Where that fails nothing else
/// does.
pub(super) fn offer(receipt: &mut Receipt, config: &Config, ui: &Ui) {
    let Handover { github_output, dotenv } = &config.handover;
    if !config.handover.is_wanted() {
        return;
    }
    let Some(thread) = thread(receipt) else { return };
    if let Some(path) = github_output {
        let values = [
            ("agent_checkpoint_thread", thread.as_str()),
            ("agent_checkpoint_task_id", receipt.task_id.as_deref().unwrap_or_default()),
            ("agent_checkpoint_agent_id", &receipt.agent_id),
        ];
        if let Err(error) = add(path, &values, false) {
            // Nobody has asked for it.
            ui.detail(&format!("could not write to GITHUB_OUTPUT, {}: {}", path.display(), cause(&error)));
        }
    }
    if let Some(path) = dotenv
        && let Err(error) = add(path, &[("AGENT_CHECKPOINT_THREAD", &thread)], true)
    {
        let path = path.display();
        let message = format!("could not hand on the thread in {path}: {}", cause(&error));
        ui.warn(&message, Some("name a file that can be written in AGENT_CHECKPOINT_DOTENV"));
        receipt.warnings.push(message);
    }
}

/// The thread as `--thread` takes it; none that Slack may just have refused.
fn thread(receipt: &Receipt) -> Option<String> {
    let (channel, ts) = (receipt.channel.as_ref()?, receipt.thread_ts.as_ref()?);
    let thread = format!("{channel}:{ts}");
    (receipt.delivery != Delivery::Rejected && parse::thread(&thread).is_ok()).then_some(thread)
}

/// Adds to a file what it does not say yet.
fn add(path: &Path, values: &[(&str, &str)], creates: bool) -> io::Result<()> {
    // A pipe or a device does not hold us up.
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(creates).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    (&file).take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    let lines = addition(&String::from_utf8_lossy(&bytes), values)
        .ok_or_else(|| io::Error::other("it ends within a value of several lines"))?;
    append(&mut file, bytes.len() as u64, lines.as_bytes())
}

/// Appends all or nothing, as far as that is in our hands: half a line is an error to whoever reads it.
fn append(file: &mut File, size: u64, bytes: &[u8]) -> io::Result<()> {
    let written = file.write(bytes)?;
    if written == bytes.len() {
        return Ok(());
    }
    // Unless somebody else has written behind us.
    if file.metadata()?.len() == size + written as u64 {
        file.set_len(size)?;
    }
    Err(io::Error::other("there is no room for all of it"))
}

/// What to append to a file of `KEY=value` lines so that the last value of each key is this one; `None` when the end of
/// the file is no place for a line. Values that are empty or do not fit in one line are left out.
///
/// GitHub's files also have values of several lines, between `KEY<<WORD` and `WORD`. People capture the output of
/// whole commands in these, and we may be one.
fn addition(text: &str, values: &[(&str, &str)]) -> Option<String> {
    let mut lines = text.lines();
    let mut last = vec![None; values.len()];
    while let Some(line) = lines.next() {
        let (before, value) = line.split_once('=').map_or((line, None), |(key, value)| (key, Some(value)));
        if before.contains("<<") {
            let (key, word) = line.split_once("<<")?;
            lines.by_ref().find(|line| *line == word)?;
            note(&mut last, values, key, None);
        } else {
            note(&mut last, values, before, value);
        }
    }
    let fits = |value: &str| !value.is_empty() && !value.contains(char::is_control);
    let news = values.iter().zip(&last).filter(|((_, value), last)| fits(value) && **last != Some(*value));
    let news: String = news.map(|((key, value), _)| format!("{key}={value}\n")).collect();
    let is_within_line = !text.is_empty() && !text.ends_with('\n');
    Some(if is_within_line && !news.is_empty() { format!("\n{news}") } else { news })
}

/// Notes what a key's value is from here on.
fn note<'a>(last: &mut [Option<&'a str>], values: &[(&str, &str)], key: &str, value: Option<&'a str>) {
    if let Some(index) = values.iter().position(|(known, _)| *known == key) {
        last[index] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [(&str, &str); 2] = [("thread", "C1:1.2"), ("agent", "a b=c<<d")];
    const BOTH: &str = "thread=C1:1.2\nagent=a b=c<<d\n";

    #[test]
    fn what_a_file_says_already_is_not_said_again() {
        for (text, added) in [
            ("", BOTH),
            ("x=1\n", BOTH),
            ("x=1\n\n", BOTH),
            (BOTH, ""),
            ("thread=C1:1.2\r\nagent=a b=c<<d\r\n", ""),
            ("thread=C1:1.2\nagent=other\n", "agent=a b=c<<d\n"),
            // The last one is the one that counts.
            ("thread=C1:1.2\nagent=a b=c<<d\nthread=C2:1.2\n", "thread=C1:1.2\n"),
            ("thread=C1:1.2\nagent=a b=c<<d\nthread<<E\nC2:1.2\nE\n", "thread=C1:1.2\n"),
            // Not a value of ours.
            ("log<<E\nthread=C1:1.2\nagent=a b=c<<d\nE\n", BOTH),
            ("log<<E=F\nthread=C1:1.2\nE=F\n", BOTH),
        ] {
            assert_eq!(addition(text, &VALUES).as_deref(), Some(added), "{text:?}");
        }
    }

    #[test]
    fn a_line_begins_on_a_line_of_its_own() {
        assert_eq!(addition("x=1", &VALUES), Some(format!("\n{BOTH}")));
        assert_eq!(addition("log<<E\ntext\nE", &VALUES), Some(format!("\n{BOTH}")));
        assert_eq!(addition(BOTH.trim_end(), &VALUES).as_deref(), Some(""));
    }

    #[test]
    fn nothing_is_added_to_a_value_that_has_not_ended() {
        for text in
            ["log<<E\n", "log<<E\ntext\n", "log<<E\nE2\n E\n", "x=1\nlog<<E", "log<<E\nE\nlog<<F\nE\n"]
        {
            assert_eq!(addition(text, &VALUES), None, "{text:?}");
        }
    }

    #[test]
    fn no_value_can_say_more_than_one_line() {
        for value in ["", "a\nb=c", "a\rb", "a\0b", "\u{85}"] {
            assert_eq!(
                addition("", &[("key", value), ("thread", "C1:1.2")]).as_deref(),
                Some("thread=C1:1.2\n")
            );
        }
    }
}
