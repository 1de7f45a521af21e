//! The account key. This is the only file that sees it: what leaves here is the public half, the
//! thumbprint and signatures.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use log::warn;
use openssl::bn::{BigNumContext, BigNumRef};
use openssl::ec::PointConversionForm;
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, PKeyRef, Private, Public};
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::input;
use crate::resources::AcmeUrl;

/// The private key of an account at the CA, and how it signs (RFC 7518 §3, RFC 8037).
pub struct AccountKey {
    key: PKey<Private>,
    /// The public half (RFC 7517), with the members of the thumbprint only.
    pub jwk: Value,
    algorithm: &'static str,
    digest: Option<MessageDigest>,
}

impl AccountKey {
    /// Reads the key from a PEM file: PKCS#1, SEC1 or PKCS#8, never encrypted.
    ///
    /// # Errors
    /// One that names the file and says what is in it, where it is no usable private key.
    pub fn read(path: &Path) -> Result<AccountKey> {
        input::load(path, |pem, metadata| {
            if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
                let path = path.display();
                warn!("every user of this machine can read your account key: chmod go-rwx {path}");
            }
            AccountKey::parse(pem)
        })
    }

    fn parse(pem: &[u8]) -> Result<AccountKey> {
        let mut is_encrypted = false;
        let key = PKey::private_key_from_pem_callback(pem, |_| {
            is_encrypted = true;
            Err(ErrorStack::get())
        });
        if is_encrypted {
            let line = "this key is encrypted, and no passphrase is ever asked for";
            let hint = "decrypt it with `openssl pkey -in KEY -out PLAINKEY`";
            bail!(Failure::new(line).hint(Some(hint)));
        }
        let key = key.ok();
        let key = key.with_context(|| input::unusable("private key", pem))?;
        let (algorithm, digest, jwk) = match key.id() {
            Id::RSA => {
                let rsa = key.rsa()?;
                let bits = rsa.n().num_bits();
                let told = format!("this RSA key has {bits} bits, and CAs take 2048 to 4096");
                ensure!((2048..=4096).contains(&bits), told);
                let (n, e) = (base64url(rsa.n().to_vec()), base64url(rsa.e().to_vec()));
                let jwk = json!({"kty": "RSA", "n": n, "e": e});
                ("RS256", Some(MessageDigest::sha256()), jwk)
            }
            Id::EC => {
                let ec = key.ec_key()?;
                let (algorithm, digest, curve) = match ec.group().curve_name() {
                    Some(Nid::X9_62_PRIME256V1) => ("ES256", MessageDigest::sha256(), "P-256"),
                    Some(Nid::SECP384R1) => ("ES384", MessageDigest::sha384(), "P-384"),
                    Some(Nid::SECP521R1) => ("ES512", MessageDigest::sha512(), "P-521"),
                    _ => bail!("this EC key is on another curve than P-256, P-384 and P-521"),
                };
                // SEC 1 §2.3.3: the byte 4, then both coordinates at their full width.
                let (form, mut scratch) =
                    (PointConversionForm::UNCOMPRESSED, BigNumContext::new()?);
                let point = ec.public_key().to_bytes(ec.group(), form, &mut scratch)?;
                let (x, y) = point[1..].split_at(point.len() / 2);
                let jwk = json!({"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)});
                (algorithm, Some(digest), jwk)
            }
            Id::ED25519 => {
                let x = base64url(key.raw_public_key()?);
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
                ("EdDSA", None, jwk)
            }
            _ => bail!("this private key is neither RSA, P-256, P-384, P-521 nor Ed25519"),
        };
        Ok(AccountKey {
            key,
            jwk,
            algorithm,
            digest,
        })
    }

    /// What the file for `token` holds (RFC 8555 §8.1): the token, a dot, and this key's thumbprint.
    pub fn key_authorization(&self, token: &str) -> String {
        // RFC 7638 §3: members in lexical order without white space, as serde_json's map prints them.
        let thumbprint = sha256(self.jwk.to_string().as_bytes());
        format!("{token}.{}", base64url(thumbprint))
    }

    /// The binding of this key to an account elsewhere (RFC 8555 §7.3.4): its JWK, signed at `url` by
    /// the HMAC key `kid`, whose base64url may have padding and white space.
    ///
    /// # Errors
    /// The HMAC key is no base64url.
    pub fn bind(&self, kid: &str, hmac_key: &[u8], url: &AcmeUrl) -> Result<Value> {
        let is_content = |byte: &u8| !byte.is_ascii_whitespace() && *byte != b'=';
        let hmac_key: Vec<u8> = hmac_key.iter().copied().filter(is_content).collect();
        ensure!(!hmac_key.is_empty(), "no base64url key in it");
        let hmac_key = BASE64_URL_SAFE_NO_PAD.decode(hmac_key);
        // The error would quote a part of the key.
        let hmac_key = PKey::hmac(&hmac_key.ok().context("no base64url key in it")?)?;
        let protected = base64url(json!({"alg": "HS256", "kid": kid, "url": url}).to_string());
        let payload = base64url(self.jwk.to_string());
        let mut signer = Signer::new(MessageDigest::sha256(), &hmac_key)?;
        signer.update(format!("{protected}.{payload}").as_bytes())?;
        let signature = base64url(signer.sign_to_vec()?);
        Ok(json!({"protected": protected, "payload": payload, "signature": signature}))
    }

    /// Whether `other` is the public half of this key.
    pub fn has_public_half(&self, other: &PKeyRef<Public>) -> bool {
        self.key.public_eq(other)
    }

    /// A signed request body: the flattened JWS of RFC 8555 §6.2. `protected` gets its `alg` here.
    ///
    /// # Errors
    /// OpenSSL's own, where it cannot sign.
    pub fn sign(&self, mut protected: Value, payload: &str) -> Result<String, ErrorStack> {
        protected["alg"] = json!(self.algorithm);
        let (protected, payload) = (base64url(protected.to_string()), base64url(payload));
        let mut signer = match self.digest {
            Some(digest) => Signer::new(digest, &self.key)?,
            None => Signer::new_without_digest(&self.key)?,
        };
        let signed = format!("{protected}.{payload}");
        let mut signature = signer.sign_oneshot_to_vec(signed.as_bytes())?;
        if let Ok(ec) = self.key.ec_key() {
            // RFC 7518 §3.4: both numbers at their full width, where OpenSSL gives DER.
            let (pair, width) = (EcdsaSig::from_der(&signature)?, ec.group().degree());
            let padded = |number: &BigNumRef| number.to_vec_padded(width.div_ceil(8) as i32);
            signature = [padded(pair.r())?, padded(pair.s())?].concat();
        }
        let signature = base64url(signature);
        Ok(json!({"protected": protected, "payload": payload, "signature": signature}).to_string())
    }
}

/// base64url without padding (RFC 8555 §6.1), as every binary member of ACME is written.
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
        let jws: Value = serde_json::from_str(&jws).unwrap();
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

    /// One signature in 128 or so has a number that begins with a zero byte, hence the repetition.
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
                let jws: Value = serde_json::from_str(&jws).unwrap();
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
                let mut verifier = match key.digest {
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
