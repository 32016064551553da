//! Which authorities are trusted instead of the built-in ones: the same for Slack and for the database.

use std::ffi::OsString;
#[cfg(feature = "postgres")]
use std::io;
#[cfg(feature = "postgres")]
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ureq::tls::{PemItem, parse_pem};

use crate::input::read_file;

/// The largest file of certificates, in bytes.
const CERTIFICATES_MAX: usize = 16 * 1024 * 1024;
/// How long one may take, if it is a pipe.
const PATIENCE: Duration = Duration::from_secs(1);

/// What `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Authorities {
    /// A PEM bundle.
    pub(crate) file: Option<PathBuf>,
    /// Directories of PEM files, separated as in `PATH`.
    pub(crate) dirs: Option<OsString>,
}

impl Authorities {
    /// The certificates (DER), where any could be read by the deadline: somebody may name a directory of other things.
    pub(crate) fn read(&self, deadline: Instant) -> Option<Vec<Vec<u8>>> {
        let mut files: Vec<PathBuf> = self.file.clone().into_iter().collect();
        for dir in self.dirs.iter().flat_map(|dirs| std::env::split_paths(dirs)) {
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()));
        }
        let found: Vec<_> = files
            .iter()
            .take_while(|_| Instant::now() < deadline)
            .filter_map(|file| read_file(file, CERTIFICATES_MAX, PATIENCE).ok())
            .flat_map(|pem| certificates(&pem))
            .collect();
        (!found.is_empty()).then_some(found)
    }
}

/// A file of certificates or with a key.
///
/// # Errors
/// Whatever the system reports; it is too long, or a pipe that does not end in time.
#[cfg(feature = "postgres")]
pub(crate) fn read(path: &Path, deadline: Instant) -> io::Result<Vec<u8>> {
    let patience = deadline.saturating_duration_since(Instant::now()).min(PATIENCE);
    read_file(path, CERTIFICATES_MAX, patience)
}

/// The certificates (DER) in a PEM file; what else stands there is passed over.
pub(crate) fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate.der().to_vec()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_other_things_is_searched_for_certificates_until_the_deadline() {
        let key = rcgen::generate_simple_self_signed(["slack.example".to_owned()]).expect("a certificate");
        let dir = tempfile::TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("one.pem"), key.cert.pem()).expect("a file");
        std::fs::write(dir.path().join("other"), [0xff; 1000]).expect("a file");
        let authorities = Authorities { dirs: Some(dir.path().into()), ..Authorities::default() };
        let found = |deadline| authorities.read(deadline).map_or(0, |found| found.len());
        assert_eq!(found(Instant::now() + Duration::from_secs(60)), 1);
        assert_eq!(found(Instant::now()), 0);
    }
}
