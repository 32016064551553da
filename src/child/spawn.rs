//! Starting the command, and what to say when that fails.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;

/// What is to be run. Working directory, descriptors above 2 and the rest of the environment are handed on as they are.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: OsString,
    pub(crate) args: Vec<OsString>,
    /// Set for the child, in addition to our environment.
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// Why there is no child. A sentence without a full stop, and how to mend it.
#[derive(Debug)]
pub(crate) struct SpawnError {
    pub(crate) reason: SpawnFailure,
    pub(crate) message: String,
    pub(crate) hint: Option<&'static str>,
}

/// As shells, env(1) and timeout(1) tell them apart.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SpawnFailure {
    /// There is no such command.
    NotFound,
    /// There is one, but the system does not run it.
    CannotInvoke,
    /// The system has no room for another process, or the like.
    Failed,
}

impl SpawnFailure {
    /// The exit code it means.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::CannotInvoke => 126,
            Self::Failed => 125,
        }
    }
}

/// Starts a program. What is not given of the streams is inherited.
///
/// A file that the system does not know the format of is run by `/bin/sh`, as shells and execvp(3) do with scripts that
/// lack a first line `#!`; but not when it is binary, as in shells.
pub(super) fn spawn(
    program: &Program,
    out: Option<&OwnedFd>,
    err: Option<&OwnedFd>,
    own_group: bool,
) -> Result<Child, SpawnError> {
    let start = |name: &OsStr, script: Option<&Path>| {
        let mut command = command(program, name, script);
        if let Some(out) = out {
            command.stdout(duplicate(out)?);
        }
        if let Some(err) = err {
            command.stderr(duplicate(err)?);
        }
        if own_group {
            command.process_group(0);
        }
        command.spawn()
    };
    let failed = match start(&program.name, None) {
        Ok(child) => return Ok(child),
        Err(error) => error,
    };
    let found = find(program);
    if errno(&failed) == Errno::ENOEXEC
        && let Some(path) = found.as_deref().filter(|path| is_text(path))
    {
        return start(OsStr::new("/bin/sh"), Some(path))
            .map_err(|error| explain(program, found.as_deref(), &error));
    }
    Err(explain(program, found.as_deref(), &failed))
}

/// Becomes the program, with our own streams: that takes neither a descriptor nor another process. Returns only when
/// that is not possible either.
pub(super) fn become_it(program: &Program) {
    let failed = command(program, &program.name, None).exec();
    if errno(&failed) == Errno::ENOEXEC
        && let Some(path) = find(program).as_deref().filter(|path| is_text(path))
    {
        let _ = command(program, OsStr::new("/bin/sh"), Some(path)).exec();
    }
}

fn command(program: &Program, name: &OsStr, script: Option<&Path>) -> Command {
    let mut command = Command::new(name);
    command.args(script).args(&program.args).envs(program.env.iter().map(|(name, value)| (name, value)));
    command
}

fn duplicate(fd: &OwnedFd) -> io::Result<Stdio> {
    Ok(fd.as_fd().try_clone_to_owned()?.into())
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// The file that execvp(3) means: the first executable one on the search path, or else the first.
fn find(program: &Program) -> Option<PathBuf> {
    let name = Path::new(&program.name);
    if program.name.is_empty() {
        return None;
    }
    if program.name.as_bytes().contains(&b'/') {
        return name.symlink_metadata().is_ok().then(|| name.to_owned());
    }
    let set = program.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let path = set.or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| "/bin:/usr/bin".into());
    let candidates: Vec<PathBuf> =
        std::env::split_paths(&path).map(|folder| folder.join(name)).filter(|path| path.exists()).collect();
    candidates.iter().find(|path| is_executable(path)).or(candidates.first()).cloned()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Shells take a file for binary if there is a NUL before the first line's end.
fn is_text(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(256).read_to_end(&mut start));
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    read.is_ok() && !line.contains(&0)
}

fn explain(program: &Program, found: Option<&Path>, error: &io::Error) -> SpawnError {
    let name = program.name.to_string_lossy();
    let say = |reason, what: &str, hint| SpawnError { reason, message: format!("'{name}' {what}"), hint };
    let is_dir = found.is_some_and(Path::is_dir);
    match (errno(error), found) {
        (Errno::ENOENT, None) => {
            say(SpawnFailure::NotFound, "was not found", Some("is it installed, and on the PATH?"))
        }
        (Errno::ENOENT, Some(path)) if path.exists() => say(
            SpawnFailure::CannotInvoke,
            "cannot be run: its interpreter was not found",
            Some("look at the first line of the file"),
        ),
        (Errno::ENOENT, Some(_)) => {
            say(SpawnFailure::NotFound, "is a link to a file that does not exist", None)
        }
        (Errno::EACCES, _) if is_dir => say(SpawnFailure::CannotInvoke, "is a directory", None),
        (Errno::EACCES, Some(path)) if !is_executable(path) => {
            say(SpawnFailure::CannotInvoke, "is not executable", Some("make it so with chmod +x"))
        }
        (Errno::EACCES, _) => say(SpawnFailure::CannotInvoke, "cannot be run: permission denied", None),
        (Errno::ENOEXEC, _) => say(
            SpawnFailure::CannotInvoke,
            "is in a format this system does not run",
            Some("was it built for another machine?"),
        ),
        (Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::UnknownErrno, _) => {
            say(SpawnFailure::Failed, &format!("could not be started: {}", words(error)), None)
        }
        _ => say(SpawnFailure::CannotInvoke, &format!("cannot be run: {}", words(error)), None),
    }
}

/// The error without the number that only programs care for, as a part of a sentence.
pub(super) fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
