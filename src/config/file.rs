//! The two kinds of settings files: `config.toml` and `--env-file`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::exit::cause;
use crate::input::read_file;

use super::Problem;
use super::keys::{Found, KEYS, Key, Origin};

/// The largest file that is read, in bytes.
const FILE_MAX: usize = 1024 * 1024;
/// How long a command that writes one into a pipe may take.
const FILE_PATIENCE: Duration = Duration::from_secs(3);

/// A file's settings.
#[derive(Debug)]
pub(super) struct Layer {
    path: PathBuf,
    values: BTreeMap<String, String>,
    /// An env-file has the names of the environment, a config file those in lower case.
    is_env: bool,
    readable_by_others: bool,
}

/// A file that should be there and cannot be used.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) message: String,
    pub(super) hint: String,
}

impl Layer {
    pub(super) fn find(&self, key: Key) -> Option<Found> {
        let name = if self.is_env { key.env } else { key.file };
        let value = self.values.get(name)?.clone();
        let origin = if self.is_env {
            Origin::EnvFile(self.path.clone())
        } else {
            Origin::ConfigFile(self.path.clone())
        };
        Some((Ok(value), origin))
    }

    /// A variable of an env-file.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.values.get(name).filter(|_| self.is_env).cloned()
    }

    /// What deserves a warning although it works.
    pub(super) fn warnings(&self) -> Vec<Problem> {
        let mut warnings = Vec::new();
        let name = |key: &Key| if self.is_env { key.env } else { key.file };
        let holds_secret = KEYS.iter().any(|key| {
            key.secret
                && self
                    .values
                    .get(name(key))
                    .is_some_and(|value| !value.is_empty() && !value.starts_with("file:"))
        });
        if holds_secret && self.readable_by_others {
            warnings.push(Problem {
                message: format!("{} holds a secret and can be read by others", self.path.display()),
                hint: format!("run chmod 600 {}", self.path.display()),
                harmless: true,
            });
        }
        if !self.is_env {
            for unknown in
                self.values.keys().filter(|key| !KEYS.iter().any(|known| known.file == key.as_str()))
            {
                warnings.push(Problem {
                    message: format!("unknown setting '{unknown}' in {}", self.path.display()),
                    hint: "settings have the names of flags, in snake case, at the top level".to_owned(),
                    harmless: true,
                });
            }
        }
        warnings
    }
}

/// What a file, or a pipe from a command, holds.
pub(super) fn read_small(path: &Path) -> std::io::Result<Vec<u8>> {
    read_file(path, FILE_MAX, FILE_PATIENCE)
}

fn read(path: &Path, what: &str) -> Result<(String, bool), Unreadable> {
    let unreadable = |error: &dyn std::fmt::Display| Unreadable {
        message: format!("could not read {what}: {}: {error}", path.display()),
        hint: "name a file that you may read".to_owned(),
    };
    let bytes = read_small(path).map_err(|error| unreadable(&cause(&error)))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable(&"it is not valid UTF-8"))?;
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or(0);
    Ok((text, mode & 0o077 != 0))
}

/// Reads `config.toml`: flag names in snake case at the top level.
pub(super) fn read_config_file(path: &Path) -> Result<Layer, Unreadable> {
    let (text, readable_by_others) = read(path, "config file")?;
    let table = DeTable::parse(&text).map_err(|error| {
        // The error's own display quotes the line, which may hold a secret.
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count() + 1;
        Unreadable {
            message: format!(
                "could not read config file: {}: line {line}: {}",
                path.display(),
                error.message()
            ),
            hint: "write settings as name = \"value\"".to_owned(),
        }
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in table.into_inner() {
        let key = key.into_inner().into_owned();
        let text = match value.into_inner() {
            DeValue::String(text) => text.into_owned(),
            // A number that is out of range is for whoever reads the setting to refuse.
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => number.to_string(),
                Err(_) => number.to_string(),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) => number.to_string(),
                Err(_) => number.to_string(),
            },
            DeValue::Boolean(switch) => switch.to_string(),
            // No setting is one: it must not be taken for a text, such as the name of a channel.
            other if KEYS.iter().any(|known| known.file == key) => {
                let kind = if other.is_array() { "list" } else { other.type_str() };
                return Err(Unreadable {
                    message: format!("could not read config file: {}: {key} is a {kind}", path.display()),
                    hint: "write settings as name = \"value\"".to_owned(),
                });
            }
            // An unknown name is pointed out whatever it holds.
            _ => String::new(),
        };
        values.insert(key, text);
    }
    Ok(Layer { path: path.to_owned(), values, is_env: false, readable_by_others })
}

/// Reads `KEY=VALUE` lines: `#` comments, an optional `export`, and quotes around a value. Nothing is expanded, since
/// a `$` in a password means itself.
pub(super) fn read_env_file(path: &Path) -> Result<Layer, Unreadable> {
    let (text, readable_by_others) = read(path, "env file")?;
    let mut values = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let assignment = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = assignment.split_once('=').filter(|(name, _)| is_name(name.trim())) else {
            return Err(Unreadable {
                message: format!(
                    "could not read env file: {}: line {} is not KEY=VALUE",
                    path.display(),
                    index + 1
                ),
                hint: "write for example SLACK_CHANNEL=#agents".to_owned(),
            });
        };
        values.insert(name.trim().to_owned(), unquote(value.trim()));
    }
    Ok(Layer { path: path.to_owned(), values, is_env: true, readable_by_others })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn unquote(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some((inner, rest)) = value.strip_prefix(quote).and_then(|inner| inner.split_once(quote))
            && (rest.trim().is_empty() || rest.trim_start().starts_with('#'))
        {
            return inner.to_owned();
        }
    }
    // A comment begins after a space, so that #channel is a value.
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_file_values_mean_themselves() {
        for (written, value) in [
            ("plain", "plain"),
            ("#agents", "#agents"),
            ("a b # why", "a b"),
            ("\"a # b\"", "a # b"),
            ("'pa$$word'  # note", "pa$$word"),
            ("\"open", "\"open"),
            ("", ""),
        ] {
            assert_eq!(unquote(written), value, "{written}");
        }
    }
}
