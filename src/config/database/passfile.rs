//! The password file, `~/.pgpass`: lines of `HOST:PORT:DATABASE:USER:PASSWORD`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::Problem;
use super::super::file::read_small;
use crate::exit::cause;

/// The file's text, or why it is passed over; `None` where there is none.
///
/// # Errors
/// It is there and cannot be used.
pub(super) fn read(path: &Path) -> Result<Option<String>, Problem> {
    let passed_over = |reason: String, hint: String| Problem {
        message: format!("password file {} {reason}; it is passed over", path.display()),
        hint,
        harmless: true,
    };
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    if !metadata.is_file() {
        return Err(passed_over("is not a plain file".to_owned(), "let PGPASSFILE name a file".to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        let hint = format!("run chmod 600 {}", path.display());
        return Err(passed_over("can be read by others".to_owned(), hint));
    }
    let text = read_small(path).map_err(|error| {
        passed_over(format!("could not be read: {}", cause(&error)), "make it readable".to_owned())
    })?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// The password of the first line that fits: host, port, database and user.
pub(super) fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in wanted {
            let (field, after) = field_of(rest)?;
            // A star that is escaped is a star.
            let fits = rest.starts_with("*:") || field == wanted;
            if !fits {
                return None;
            }
            rest = after;
        }
        // A colon in the password may be escaped and need not be.
        let password = unescape(rest);
        (!password.is_empty()).then_some(password)
    })
}

/// The first field, and what follows its colon.
fn field_of(text: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some((unescape(&text[..end]), &text[end + 1..]))
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let text = "# db:5432:app:ana:comment\n\
                    db:5432:app:ana:first\n\
                    db:5432:app:ana:second\n\
                    short:5432\n\
                    *:5433:*:ana:star\n\
                    \\*:5432:app:ana:escaped\n\
                    \\:\\:1:5432:a\\\\b:ana:pa\\:ss\\\\:word\n\
                    empty:*:*:*:\n\
                    *:*:*:root:any\r\n";
        for (wanted, password) in [
            (["db", "5432", "app", "ana"], Some("first")),
            (["db", "5433", "other", "ana"], Some("star")),
            (["db", "5432", "other", "ana"], None),
            (["*", "5432", "app", "ana"], Some("escaped")),
            (["::1", "5432", "a\\b", "ana"], Some("pa:ss\\:word")),
            (["empty", "5432", "app", "bob"], None),
            (["x", "1", "y", "root"], Some("any")),
        ] {
            assert_eq!(find(text, wanted).as_deref(), password, "{wanted:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(text in "[a:*\\\\#é\n]*") {
            let _ = find(&text, ["a", "a", "a", "a"]);
        }
    }
}
