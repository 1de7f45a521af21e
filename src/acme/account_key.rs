//! The account key: its public half, its thumbprint, and how it signs.
//!
//! The private key is in a private field of [`AccountKey`], and what leaves here is the public half, the thumbprint
//! and signatures. Only `files.rs`, which reads the key file, sees its bytes besides.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use log::warn;
use openssl::bn::{BigNumContext, BigNumRef};
use openssl::ec::{EcKey, PointConversionForm};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, PKeyRef, Private, Public};
use openssl::rsa::Rsa;
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::{Value, json};

use super::resources::AcmeUrl;
use crate::deadline::Deadline;
use crate::error::Failure;
use crate::files;

/// The sizes of RSA keys that CAs accept, in bits.
const RSA_BITS_MIN: i32 = 2048;
const RSA_BITS_MAX: i32 = 4096;

/// The private key of an account at a CA.
pub struct AccountKey {
    key: PKey<Private>,
    algorithm: Algorithm,
    jwk: Value,
}

/// The signature algorithms of RFC 7518 §3 and RFC 8037, one for each kind of key.
#[derive(Clone, Copy)]
enum Algorithm {
    Rs256,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// A signed request body: a flattened JWS (§6.2).
pub struct Jws {
    /// The protected header.
    pub protected: Value,
    /// The payload; empty in a POST-as-GET.
    pub payload: String,
    /// The signature, in base64url.
    pub signature: String,
}

impl AccountKey {
    /// Reads the key from a PEM file: PKCS#1, SEC1 or PKCS#8, not encrypted.
    ///
    /// # Errors
    /// The file holds no usable private key. The error names the file and says what is in it.
    pub fn read(path: &Path, deadline: &Deadline) -> Result<AccountKey> {
        files::load("--account-key", path, deadline, |pem, metadata| {
            let key = AccountKey::parse(pem)?;
            if is_readable_by_all(metadata) {
                let path = path.display();
                warn!("every user of this machine can read your account key: chmod go-rwx {path}");
            }
            Ok(key)
        })
    }

    fn parse(pem: &[u8]) -> Result<AccountKey> {
        let key = parse_private_key(pem)?;
        let (algorithm, jwk) = match key.id() {
            Id::RSA => (Algorithm::Rs256, rsa_jwk(&key.rsa()?)?),
            Id::EC => ec_algorithm_and_jwk(&key.ec_key()?)?,
            Id::ED25519 => {
                let x = base64url(key.raw_public_key()?);
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
                (Algorithm::EdDsa, jwk)
            }
            _ => bail!("this private key is neither RSA, P-256, P-384, P-521 nor Ed25519"),
        };
        Ok(AccountKey {
            key,
            algorithm,
            jwk,
        })
    }

    /// Returns the public half as a JWK (RFC 7517), with the members that the thumbprint covers and no others.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Whether `other` is the public half of this key.
    pub fn has_public_half(&self, other: &PKeyRef<Public>) -> bool {
        self.key.public_eq(other)
    }

    /// Returns the key authorization for a token (§8.1): the token, a dot, and the thumbprint.
    pub fn key_authorization(&self, token: &str) -> String {
        format!("{token}.{}", self.thumbprint())
    }

    /// Returns the thumbprint of the public half (RFC 7638), in base64url.
    fn thumbprint(&self) -> String {
        // RFC 7638 §3: the members in alphabetical order, without white space. That is how serde_json prints
        // them as long as its feature `preserve_order` is off; a unit test would notice.
        let jwk = self.jwk.to_string();
        base64url(sha256(jwk.as_bytes()))
    }

    /// Signs `payload` under the protected header, to which `alg` is added (§6.2).
    ///
    /// # Errors
    /// OpenSSL cannot sign.
    pub fn sign(&self, mut protected: Value, payload: &str) -> Result<Jws, ErrorStack> {
        protected["alg"] = json!(self.algorithm.name());
        let mut signer = match self.algorithm.digest() {
            Some(digest) => Signer::new(digest, &self.key)?,
            None => Signer::new_without_digest(&self.key)?,
        };
        let signing_input = to_signing_input(&protected, payload);
        let mut signature = signer.sign_oneshot_to_vec(signing_input.as_bytes())?;
        if let Some(width) = self.algorithm.ecdsa_width() {
            signature = ecdsa_der_to_jws(&signature, width)?;
        }
        Ok(Jws {
            protected,
            payload: payload.to_owned(),
            signature: base64url(signature),
        })
    }

    /// Returns the `externalAccountBinding` of this key (§7.3.4): its JWK, signed with an HMAC key that
    /// the CA knows as `kid`. `hmac_key` is base64url; padding and white space are ignored.
    ///
    /// # Errors
    /// `hmac_key` is not base64url, or OpenSSL cannot sign.
    pub fn bind_external_account(
        &self,
        kid: &str,
        hmac_key: &[u8],
        new_account: &AcmeUrl,
    ) -> Result<Value> {
        let mut digits = hmac_key.to_vec();
        digits.retain(|byte| !byte.is_ascii_whitespace() && *byte != b'=');
        ensure!(!digits.is_empty(), "no base64url key in it");
        // The decoder's own error is dropped: it would show a character of the key.
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(digits).ok();
        let secret = decoded.context("no base64url key in it")?;

        let protected = json!({"alg": "HS256", "kid": kid, "url": new_account});
        let payload = self.jwk.to_string();
        let signing_input = to_signing_input(&protected, &payload);
        let signing_key = PKey::hmac(&secret)?;
        let mut signer = Signer::new(MessageDigest::sha256(), &signing_key)?;
        let signature = signer.sign_oneshot_to_vec(signing_input.as_bytes())?;
        let binding = Jws {
            protected,
            payload,
            signature: base64url(signature),
        };
        Ok(binding.to_json())
    }
}

impl Algorithm {
    /// Returns its name in a JWS header.
    fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Es512 => "ES512",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// Returns the hash function that OpenSSL must be told. Ed25519 has its own.
    fn digest(self) -> Option<MessageDigest> {
        match self {
            Algorithm::Rs256 | Algorithm::Es256 => Some(MessageDigest::sha256()),
            Algorithm::Es384 => Some(MessageDigest::sha384()),
            Algorithm::Es512 => Some(MessageDigest::sha512()),
            Algorithm::EdDsa => None,
        }
    }

    /// Returns the length of each of the two numbers of an ECDSA signature, in bytes (RFC 7518 §3.4).
    fn ecdsa_width(self) -> Option<i32> {
        match self {
            Algorithm::Es256 => Some(32),
            Algorithm::Es384 => Some(48),
            Algorithm::Es512 => Some(66),
            Algorithm::Rs256 | Algorithm::EdDsa => None,
        }
    }
}

impl Jws {
    /// Returns the request body.
    pub fn to_body(&self) -> String {
        self.to_json().to_string()
    }

    fn to_json(&self) -> Value {
        json!({
            "protected": base64url(self.protected.to_string()),
            "payload": base64url(&self.payload),
            "signature": self.signature,
        })
    }
}

/// Returns what is signed (RFC 7515 §5.1).
fn to_signing_input(protected: &Value, payload: &str) -> String {
    let header = base64url(protected.to_string());
    format!("{header}.{}", base64url(payload))
}

fn is_readable_by_all(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o004 != 0
}

/// Parses a private key. An encrypted one is refused.
fn parse_private_key(pem: &[u8]) -> Result<PKey<Private>> {
    let mut is_encrypted = false;
    // The callback is called for an encrypted key only. Without it, OpenSSL would ask for the passphrase on the
    // terminal.
    let parsed = PKey::private_key_from_pem_callback(pem, |_| {
        is_encrypted = true;
        Err(ErrorStack::get())
    });
    if is_encrypted {
        let failure = Failure::new("this key is encrypted, and getcrt never asks for a passphrase");
        bail!(failure.with_hint("decrypt it with `openssl pkey -in KEY -out PLAINKEY`"));
    }
    parsed.map_err(|_| files::unusable("private key", pem).into())
}

fn rsa_jwk(rsa: &Rsa<Private>) -> Result<Value> {
    let bits = rsa.n().num_bits();
    ensure!(
        (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits),
        "this RSA key has {bits} bits, and CAs take 2048 to 4096"
    );
    let n = base64url(rsa.n().to_vec());
    let e = base64url(rsa.e().to_vec());
    Ok(json!({"kty": "RSA", "n": n, "e": e}))
}

fn ec_algorithm_and_jwk(ec: &EcKey<Private>) -> Result<(Algorithm, Value)> {
    let (algorithm, curve) = match ec.group().curve_name() {
        Some(Nid::X9_62_PRIME256V1) => (Algorithm::Es256, "P-256"),
        Some(Nid::SECP384R1) => (Algorithm::Es384, "P-384"),
        Some(Nid::SECP521R1) => (Algorithm::Es512, "P-521"),
        _ => bail!("this EC key is on another curve than P-256, P-384 and P-521"),
    };
    let mut scratch = BigNumContext::new()?;
    let form = PointConversionForm::UNCOMPRESSED;
    let point = ec.public_key().to_bytes(ec.group(), form, &mut scratch)?;
    // SEC 1 §2.3.3: a byte 4, then x and y, each as long as the curve's field.
    let coordinates = &point[1..];
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    let jwk = json!({"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)});
    Ok((algorithm, jwk))
}

/// Turns OpenSSL's DER form of an ECDSA signature into that of RFC 7518 §3.4: both numbers padded to
/// `width` bytes, one after the other.
fn ecdsa_der_to_jws(der: &[u8], width: i32) -> Result<Vec<u8>, ErrorStack> {
    let numbers = EcdsaSig::from_der(der)?;
    let padded = |number: &BigNumRef| number.to_vec_padded(width);
    Ok([padded(numbers.r())?, padded(numbers.s())?].concat())
}

/// Returns base64url without padding (§6.1), in which ACME writes every binary value.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::rsa::Rsa;
    use openssl::sign::Verifier;

    use super::*;

    fn account_key(key: PKey<Private>) -> AccountKey {
        AccountKey::parse(&key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }

    fn decode(text: &Value) -> Vec<u8> {
        BASE64_URL_SAFE_NO_PAD
            .decode(text.as_str().unwrap())
            .unwrap()
    }

    /// RFC 8037, appendix A: key, JWK, thumbprint and signature.
    #[test]
    fn the_vector_of_rfc_8037() {
        let d = decode(&json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"));
        let key = account_key(PKey::private_key_from_raw_bytes(&d, Id::ED25519).unwrap());
        assert_eq!(key.jwk["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let file = key.key_authorization("token");
        assert_eq!(file, "token.kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let jws = key.sign(json!({}), "Example of Ed25519 signing").unwrap();
        let jws = jws.to_json();
        assert_eq!(jws["protected"], "eyJhbGciOiJFZERTQSJ9");
        assert_eq!(jws["payload"], "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc");
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(jws["signature"], signature);
    }

    /// RFC 7638, section 3.1: the thumbprint of an RSA key.
    #[test]
    fn the_vector_of_rfc_7638() {
        let mut key = account_key(PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap());
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        key.jwk = json!({"kty": "RSA", "n": n, "e": "AQAB"});
        let file = key.key_authorization("t");
        assert_eq!(file, "t.NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    /// Elliptic curve keys sign many times: one signature in 128 or so has a number that begins with a zero byte.
    #[test]
    fn openssl_verifies_every_kind_of_signature() {
        let ec = |curve| {
            let group = EcGroup::from_curve_name(curve).unwrap();
            PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
        };
        let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let kinds = [
            ("RS256", rsa, 3, 0),
            ("ES256", ec(Nid::X9_62_PRIME256V1), 400, 32),
            ("ES384", ec(Nid::SECP384R1), 100, 48),
            ("ES512", ec(Nid::SECP521R1), 100, 66),
            ("EdDSA", PKey::generate_ed25519().unwrap(), 3, 0),
        ];
        for (algorithm, private, repetitions, width) in kinds {
            let public = PKey::public_key_from_pem(&private.public_key_to_pem().unwrap()).unwrap();
            let key = account_key(private);
            for i in 0..repetitions {
                let jws = key.sign(json!({"nonce": i}), "payload").unwrap();
                let jws: Value = serde_json::from_str(&jws.to_body()).unwrap();
                let protected: Value = serde_json::from_slice(&decode(&jws["protected"])).unwrap();
                assert_eq!(protected, json!({"alg": algorithm, "nonce": i}));
                let signed = format!(
                    "{}.{}",
                    jws["protected"].as_str().unwrap(),
                    jws["payload"].as_str().unwrap()
                );
                let mut signature = decode(&jws["signature"]);
                if width > 0 {
                    let (r, s) = signature.split_at(width);
                    let number = |bytes| BigNum::from_slice(bytes).unwrap();
                    let pair = EcdsaSig::from_private_components(number(r), number(s)).unwrap();
                    assert_eq!(s.len(), width);
                    signature = pair.to_der().unwrap();
                }
                let mut verifier = match key.algorithm.digest() {
                    Some(digest) => Verifier::new(digest, &public).unwrap(),
                    None => Verifier::new_without_digest(&public).unwrap(),
                };
                assert!(
                    verifier
                        .verify_oneshot(&signature, signed.as_bytes())
                        .unwrap()
                );
            }
        }
    }
}
