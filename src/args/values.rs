//! How the values of flags are read: by our own functions, so that the errors are ours.

use std::ffi::OsStr;

use clap::builder::{OsStringValueParser, PossibleValue, TypedValueParser};

use crate::checkpoint::parse::Invalid;
use crate::checkpoint::status::{Status, TaskState};
use crate::child::Pattern;

/// Reads a word as `read` does, so that errors stay ours, and tells completions which words there are.
#[derive(Clone)]
pub(super) struct Words<T> {
    read: fn(&str) -> Result<T, Invalid>,
    names: Vec<&'static str>,
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Words<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        text(self.read).parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.names.iter().map(PossibleValue::new)))
    }
}

pub(super) fn statuses() -> Words<Status> {
    Words { read: Status::parse, names: Status::ALL.map(Status::name).to_vec() }
}

pub(super) fn task_states() -> Words<TaskState> {
    Words { read: TaskState::parse, names: TaskState::ALL.map(TaskState::name).to_vec() }
}

/// A pattern that finds progress in a line.
pub(crate) fn progress_pattern(text: &str) -> Result<Pattern, Invalid> {
    let hint = "write for example '(?P<done>[0-9]+)/(?P<total>[0-9]+)'";
    Pattern::parse(text).map_err(|reason| Invalid::new(reason, hint))
}

/// Reads a value's text. Clap's own reader would not say which value is no text.
pub(super) fn text<T: Clone + Send + Sync + 'static>(
    read: fn(&str) -> Result<T, Invalid>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |raw| match raw.to_str() {
        Some(text) => read(text),
        None => Err(Invalid::new("is not valid UTF-8", "write it in UTF-8")),
    })
}
