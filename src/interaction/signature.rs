//! Whether a request comes from Slack: its signature (v0) over the bytes as they came
//! (<https://docs.slack.dev/authentication/verifying-requests-from-slack>).
//!
//! Within the five minutes a request can be replayed: whoever acts on one sees to it that nothing happens twice, by
//! the id of an [`Interaction`](super::wire::Interaction).

use std::fmt;

use ring::hmac;

use crate::checkpoint::time::Moment;
use crate::secret::Secret;

/// The header with the time of signing, in lower case.
#[cfg(feature = "serve")]
pub(crate) const TIMESTAMP: &str = "x-slack-request-timestamp";
/// The header with the signature, in lower case.
#[cfg(feature = "serve")]
pub(crate) const SIGNATURE: &str = "x-slack-signature";

/// How far the time of signing may be from now, in seconds, either way.
const WINDOW: u64 = 300;

/// Why a request is not taken for Slack's. Said to whoever sent it, it must help nobody to forge one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// One of the two headers is missing.
    Unsigned,
    /// The time of signing is no whole number of seconds.
    Timeless,
    /// It was signed more than five minutes ago, or by a clock that is ahead.
    Stale,
    /// The signature is not that of this body and time by this secret.
    Forged,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsigned => "the request is not signed",
            Self::Timeless => "the time of the signature is not a number of seconds",
            Self::Stale => "the signature is more than five minutes away from this machine's clock",
            Self::Forged => "the signature does not fit the request and SLACK_SIGNING_SECRET",
        })
    }
}

/// Checks the two headers of a request against its body, which must be exactly the bytes that came. How long it takes
/// does not depend on how much of a signature is right.
///
/// # Errors
/// Why the request is not taken for Slack's.
pub(crate) fn verify(
    secret: &Secret,
    timestamp: Option<&str>,
    signature: Option<&str>,
    body: &[u8],
    now: Moment,
) -> Result<(), Refusal> {
    let (Some(timestamp), Some(signature)) = (timestamp, signature) else { return Err(Refusal::Unsigned) };
    // Only digits: what else a number could be written as, Slack does not write.
    let is_digits = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let signed: i64 = timestamp.parse().ok().filter(|_| is_digits).ok_or(Refusal::Timeless)?;
    if now.0.div_euclid(1000).abs_diff(signed) > WINDOW {
        return Err(Refusal::Stale);
    }
    let tag = signature.strip_prefix("v0=").and_then(bytes_of).ok_or(Refusal::Forged)?;
    // The secret looks like a number in hexadecimal, but its text is the key.
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let mut base = format!("v0:{timestamp}:").into_bytes();
    base.extend_from_slice(body);
    hmac::verify(&key, &base, &tag).map_err(|_| Refusal::Forged)
}

/// The 32 bytes that 64 digits stand for.
pub(super) fn bytes_of(hex: &str) -> Option<[u8; 32]> {
    let digits = hex.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |of: u8| match of {
            b'0'..=b'9' => Some(of - b'0'),
            b'a'..=b'f' => Some(of - b'a' + 10),
            _ => None,
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Slack's page.
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const AT: &str = "1531420618";
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
        &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
        &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
        &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNED: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn at(seconds: i64) -> Moment {
        Moment(seconds * 1000)
    }

    fn verdict(at_header: &str, signature: &str, body: &[u8], seconds: i64) -> Result<(), Refusal> {
        verify(&Secret::new(SECRET.to_owned()), Some(at_header), Some(signature), body, at(seconds))
    }

    #[test]
    fn slacks_own_example_is_taken_within_five_minutes_and_not_after() {
        assert_eq!(BODY.len(), 362);
        let signed = 1_531_420_618;
        for (now, expected) in [
            (signed, Ok(())),
            (signed + 300, Ok(())),
            (signed - 300, Ok(())),
            (signed + 301, Err(Refusal::Stale)),
            (signed - 301, Err(Refusal::Stale)),
            (0, Err(Refusal::Stale)),
        ] {
            assert_eq!(verdict(AT, SIGNED, BODY.as_bytes(), now), expected, "{now}");
        }
        // The last moment of the last second still counts.
        let secret = Secret::new(SECRET.to_owned());
        let late = Moment((signed + 300) * 1000 + 999);
        assert_eq!(verify(&secret, Some(AT), Some(SIGNED), BODY.as_bytes(), late), Ok(()));
    }

    #[test]
    fn what_is_altered_truncated_or_differently_written_is_forged() {
        let now = 1_531_420_618;
        let altered = BODY.replace("foobar", "foobaz");
        let last = SIGNED.replace("b503", "b504");
        let (upper, version) = (SIGNED.to_uppercase(), SIGNED.replace("v0", "v1"));
        let (short, long) = (&SIGNED[..SIGNED.len() - 1], format!("{SIGNED}0"));
        for (signature, body) in [
            (SIGNED, altered.as_str()),
            (SIGNED, &BODY[..361]),
            (SIGNED, ""),
            (SIGNED, &format!("{BODY}\n")),
            (&last, BODY),
            (&upper, BODY),
            (&version, BODY),
            (short, BODY),
            (&long, BODY),
            (&SIGNED[3..], BODY),
            ("v0=", BODY),
            ("", BODY),
            ("v0=ää114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503", BODY),
        ] {
            assert_eq!(verdict(AT, signature, body.as_bytes(), now), Err(Refusal::Forged), "{signature}");
        }
        // The time is signed as well.
        assert_eq!(verdict("1531420619", SIGNED, BODY.as_bytes(), now), Err(Refusal::Forged));
        let other = Secret::new("8f742231b10e8888abcd99yyyzzz85a6".to_owned());
        let by_other = verify(&other, Some(AT), Some(SIGNED), BODY.as_bytes(), at(now));
        assert_eq!(by_other, Err(Refusal::Forged));
    }

    #[test]
    fn a_time_that_is_none_and_a_header_that_is_missing_are_refused() {
        let now = 1_531_420_618;
        for time in ["", " 1531420618", "+1531420618", "-1531420618", "1531420618.0", "0x5b479b0a", "now"] {
            assert_eq!(verdict(time, SIGNED, BODY.as_bytes(), now), Err(Refusal::Timeless), "{time}");
        }
        assert_eq!(verdict("99999999999999999999", SIGNED, b"", now), Err(Refusal::Timeless));
        assert_eq!(verdict("9223372036854775807", SIGNED, b"", now), Err(Refusal::Stale));
        let secret = Secret::new(SECRET.to_owned());
        for (time, signature) in [(None, Some(SIGNED)), (Some(AT), None), (None, None)] {
            assert_eq!(verify(&secret, time, signature, b"", at(now)), Err(Refusal::Unsigned));
        }
    }

    #[test]
    fn a_body_need_not_be_text() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let body = [0xff, 0x00, 0xfe];
        let tag = hmac::sign(&key, &[b"v0:7:".as_slice(), &body].concat());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(verdict("7", &format!("v0={hex}"), &body, 7), Ok(()));
    }
}
