//! Reading what others named: no more than there is room for, and not for ever.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// What is read at once, in bytes.
const CHUNK: usize = 16 * 1024;

/// Where reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// There is no more.
    Whole,
    /// There is more than was asked for.
    TooLong,
    /// Nobody wrote more in time.
    TooLate,
}

/// Reads at most `max` bytes, and until then at the latest.
///
/// # Errors
/// Whatever the system reports.
pub(crate) fn read(mut from: impl Read + AsFd, max: usize, until: Instant) -> io::Result<(Vec<u8>, End)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        if !is_ready(&from, until)? {
            return Ok((bytes, End::TooLate));
        }
        match from.read(&mut chunk) {
            Ok(0) => return Ok((bytes, End::Whole)),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
        if bytes.len() > max {
            bytes.truncate(max);
            return Ok((bytes, End::TooLong));
        }
    }
}

/// Reads a file, or a pipe from a command. What never ends, such as a device, does not fill the memory; what never
/// begins, such as a pipe without a writer, holds nobody up for longer than `patience`.
///
/// # Errors
/// Whatever the system reports; it is too long, or not all there in time.
pub(crate) fn read_file(path: &Path, max: usize, patience: Duration) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match read(file, max, Instant::now() + patience)? {
        (bytes, End::Whole) => Ok(bytes),
        (_, End::TooLong) => Err(io::Error::other(format!("it is larger than {} MiB", max / 1024 / 1024))),
        (_, End::TooLate) => {
            Err(io::Error::other(format!("it does not end within {:.0} s", patience.as_secs_f64())))
        }
    }
}

/// Waits until there is something to read, or the end. Files are always ready.
fn is_ready(file: &impl AsFd, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(file, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn stops_at_the_end_at_the_limit_and_in_time() {
        let soon = || Instant::now() + Duration::from_millis(50);
        let patiently = || Instant::now() + Duration::from_secs(60);
        let pipe = |text: &[u8]| {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            writer.write_all(text).expect("room in it");
            (reader, writer)
        };
        let (reader, writer) = pipe(b"all of it");
        drop(writer);
        assert_eq!(read(reader, 9, patiently()).expect("a pipe"), (b"all of it".to_vec(), End::Whole));
        let (reader, _writer) = pipe(b"all of it");
        assert_eq!(read(reader, 3, patiently()).expect("a pipe"), (b"all".to_vec(), End::TooLong));
        let (reader, _writer) = pipe(b"all of it");
        assert_eq!(read(reader, 9, soon()).expect("a pipe"), (b"all of it".to_vec(), End::TooLate));
    }
}
