//! Proofs: what only somebody can write down who has seen a button's secret, so that a click can be passed on through a
//! database whose readers and writers have not.

use std::fmt::Write as _;

use ring::hmac;

use super::signature::bytes_of;

/// Proves a claim: HMAC-SHA256 by the secret, in hexadecimal.
pub(crate) fn prove(secret: &str, claim: &str) -> String {
    let tag = hmac::sign(&key(secret), claim.as_bytes());
    tag.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Whether it is that claim's proof, found out in the same time wherever they differ.
pub(crate) fn is_proven(secret: &str, claim: &str, proof: &str) -> bool {
    // An empty secret is none.
    let tag = bytes_of(proof).filter(|_| !secret.is_empty());
    tag.is_some_and(|tag| hmac::verify(&key(secret), claim.as_bytes(), &tag).is_ok())
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_one_claim_and_one_secret() {
        let proof = prove("5ec2e7", "this");
        assert!(is_proven("5ec2e7", "this", &proof));
        for (secret, claim, proof) in [
            ("5ec2e7", "that", proof.as_str()),
            ("5ec2e8", "this", &proof),
            ("5ec2e7", "this", &proof[..62]),
            ("5ec2e7", "this", ""),
            ("", "this", &prove("", "this")),
        ] {
            assert!(!is_proven(secret, claim, proof), "{secret} {claim} {proof}");
        }
    }
}
