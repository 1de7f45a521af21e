//! The certificate signing request: the names that it asks for, and whether http-01 can prove them.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use log::{info, warn};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, PKeyRef, Public};
use openssl::stack::Stack;
use openssl::x509::{GeneralName, GeneralNameRef, X509, X509ExtensionRef, X509NameEntryRef};
use openssl::x509::{X509Req, X509ReqRef};

use crate::acme::resources::Identifier;
use crate::deadline::Deadline;
use crate::der;
use crate::error::Failure;
use crate::files;
use crate::text::excerpt;

// Object identifiers, as DER has them.
/// subjectAltName (RFC 5280 §4.2.1.6): 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// TLS features, such as must-staple (RFC 7633): 1.3.6.1.5.5.7.1.24.
const TLS_FEATURE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18];
/// RSA with SHA-1 (RFC 8017): 1.2.840.113549.1.1.5.
const RSA_WITH_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];
/// ECDSA with SHA-1 (RFC 3279 §2.2.3): 1.2.840.10045.4.1.
const ECDSA_WITH_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
/// The fewest bits of an RSA key that CAs take (Baseline Requirements §6.1.5).
const RSA_BITS_MIN: i32 = 2048;

/// The most names that are taken. No known CA takes more; most take a hundred. This bounds the searches among the names.
const MAX_NAMES: usize = 1000;

/// A CSR whose signature is right, and the names that it asks for.
pub struct Csr {
    request: X509Req,
    /// The key that the certificate will be for.
    pub key: PKey<Public>,
    /// The names, each once: the common name first, unless it is ignored, then those of the SAN extension.
    pub identifiers: Vec<Identifier>,
}

impl Csr {
    /// Reads a CSR in PEM or DER.
    ///
    /// # Errors
    /// The file holds no CSR, its signature is wrong, or it asks for a name that http-01 cannot prove.
    /// The error names the file.
    pub fn read(path: &Path, deadline: &Deadline) -> Result<Csr> {
        files::load("--csr", path, deadline, |content, _| Csr::parse(content))
    }

    fn parse(content: &[u8]) -> Result<Csr> {
        files::check_not_encrypted(content)?;
        let request = X509Req::from_pem(content)
            .or_else(|_| X509Req::from_der(content))
            .map_err(|_| files::unusable("CSR", content))?;
        let key = request
            .public_key()
            .ok()
            .context("the CSR's key is of an unknown kind")?;
        // First, because OpenSSL may be set up not to verify such a signature.
        check_signature_algorithm(&request)?;
        if !request.verify(&key).unwrap_or(false) {
            bail!("the CSR's signature does not verify; make the CSR again");
        }
        check_key(&key)?;
        let identifiers = requested_names(&request)?;
        Ok(Csr {
            request,
            key,
            identifiers,
        })
    }

    /// Returns the index of a name among those that the CSR asks for.
    pub fn position(&self, identifier: &Identifier) -> Option<usize> {
        self.identifiers.iter().position(|it| it == identifier)
    }

    /// Returns the request in DER, as the CA gets it (RFC 8555 §7.4).
    ///
    /// # Errors
    /// OpenSSL cannot encode it.
    pub fn to_der(&self) -> Result<Vec<u8>, ErrorStack> {
        self.request.to_der()
    }
}

fn requested_names(request: &X509ReqRef) -> Result<Vec<Identifier>> {
    let alternatives = subject_alternative_names(request)?;
    let common_names: Vec<&X509NameEntryRef> = request
        .subject_name()
        .entries_by_nid(Nid::COMMONNAME)
        .collect();
    let count = alternatives.len() + common_names.len();
    if count > MAX_NAMES {
        bail!("the CSR asks for {count} names, and no CA is known to take more than {MAX_NAMES}");
    }
    let mut names = Vec::new();
    for entry in common_names {
        let text = entry.data().to_string()?;
        names.extend(common_name(&text, &alternatives)?);
    }
    names.extend(alternatives);

    let mut unique = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    if unique.is_empty() {
        bail!("the CSR asks for no names, neither by common name nor by SAN");
    }
    Ok(unique)
}

/// Returns the identifier that a common name stands for. `None` means that it is ignored, like "My Shop".
/// `alternatives` are the names of the SAN extension. (The unit tests have a table of the cases.)
///
/// # Errors
/// It is a wildcard. Or it is the only name, and neither a DNS name nor an IP address.
fn common_name(text: &str, alternatives: &[Identifier]) -> Result<Option<Identifier>> {
    refuse_wildcard(text)?;
    if alternatives.is_empty() {
        return Ok(Some(dns_name_or_ip(text)?));
    }
    match dns_name_or_ip(text) {
        Ok(name) if alternatives.contains(&name) => Ok(Some(name)),
        // A host name that somebody forgot to repeat among the alternative names.
        Ok(Identifier::Dns(name)) if name.contains('.') => Ok(Some(Identifier::Dns(name))),
        Ok(_) | Err(_) => {
            let text = excerpt(text);
            info!(
                "Ignoring the common name `{text}`, which is not among the subject alternative names"
            );
            Ok(None)
        }
    }
}

fn dns_name_or_ip(text: &str) -> Result<Identifier> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Identifier::Ip(address)),
        Err(_) => checked_dns_name(text),
    }
}

/// Checks that CAs take a certificate's key. What Let's Encrypt does not take, others may.
fn check_key(key: &PKeyRef<Public>) -> Result<()> {
    match key.id() {
        Id::RSA => {
            let rsa = key.rsa()?;
            let bits = rsa.n().num_bits();
            if bits < RSA_BITS_MIN {
                bail!("the CSR's RSA key has {bits} bits, and CAs take {RSA_BITS_MIN} or more");
            }
            if rsa.e().to_vec() == [3] {
                warn_of_lets_encrypt("has an RSA key with the exponent 3");
            }
        }
        Id::EC if key.ec_key()?.group().curve_name() == Some(Nid::SECP521R1) => {
            warn_of_lets_encrypt("has a key on the curve P-521");
        }
        Id::ED25519 => warn_of_lets_encrypt("has an Ed25519 key"),
        _ => {}
    }
    Ok(())
}

/// Warns of something that Let's Encrypt refuses when it gets the CSR, which is after all names are proven.
fn warn_of_lets_encrypt(finding: &str) {
    warn!("the CSR {finding}, which Let's Encrypt does not take");
}

/// Checks that CAs take the way in which the CSR is signed.
fn check_signature_algorithm(request: &X509ReqRef) -> Result<()> {
    let der = request.to_der()?;
    // RFC 2986 §4.2: a sequence of what is signed, the algorithm and the signature.
    let algorithm = der::first_value(&der)
        .and_then(|(content, _)| der::first_value(content))
        .and_then(|(_signed, rest)| der::first_value(rest))
        .and_then(|(algorithm, _)| der::object_identifier(algorithm));
    if algorithm == Some(RSA_WITH_SHA1) || algorithm == Some(ECDSA_WITH_SHA1) {
        bail!("the CSR is signed with SHA-1, which CAs do not take; make it again with -sha256");
    }
    Ok(())
}

/// Returns the names of the CSR's SAN extension, in order.
fn subject_alternative_names(request: &X509ReqRef) -> Result<Vec<Identifier>> {
    let extensions = match request.extensions() {
        Ok(extensions) => extensions,
        // A CSR without any extension makes OpenSSL fail without an error.
        Err(errors) if errors.errors().is_empty() => return Ok(Vec::new()),
        Err(_) => bail!("the CSR's extensions are damaged"),
    };
    let mut san_extensions = Vec::new();
    for extension in &extensions {
        let der = extension.to_der()?;
        let identifier =
            der::first_value(&der).and_then(|(content, _)| der::object_identifier(content));
        match identifier {
            Some(SUBJECT_ALT_NAME) => san_extensions.push(extension),
            Some(TLS_FEATURE) => warn_of_lets_encrypt("asks for must-staple"),
            _ => {}
        }
    }
    let mut identifiers = Vec::new();
    for name in general_names(&san_extensions)? {
        let identifier = from_general_name(&name)
            .context("the CSR asks for something else than DNS names and IP addresses (an e-mail address, for example), which http-01 cannot prove")?;
        match identifier {
            Identifier::Dns(text) => identifiers.push(checked_dns_name(&text)?),
            address => identifiers.push(address),
        }
    }
    Ok(identifiers)
}

/// Returns the names in the SAN extension, of which there should be one or none. The openssl crate reads names
/// from a certificate only, so the extension is put into an empty one.
fn general_names(san_extensions: &[&X509ExtensionRef]) -> Result<Stack<GeneralName>> {
    let names = match san_extensions {
        [] => return Ok(Stack::new()?),
        [extension] => {
            let mut certificate = X509::builder()?;
            certificate.append_extension2(extension)?;
            certificate.build().subject_alt_names()
        }
        _ => None,
    };
    let count = san_extensions.len();
    names.with_context(|| match count {
        1 => "the CSR's subjectAltName extension is damaged".to_owned(),
        _ => format!("the CSR has {count} subjectAltName extensions, and one is allowed"),
    })
}

/// Returns a name of a certificate or CSR as an identifier, if it is a DNS name or an IP address. The
/// DNS name may be one that no CA would accept.
pub fn from_general_name(name: &GeneralNameRef) -> Option<Identifier> {
    if let Some(dns) = name.dnsname() {
        return Some(Identifier::Dns(dns.to_ascii_lowercase()));
    }
    let bytes = name.ipaddress()?;
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(Identifier::Ip(address))
}

/// Checks a DNS name and returns it in lower case. (Underscores are left for the CA to judge.)
///
/// # Errors
/// It is a wildcard, or not a DNS name.
fn checked_dns_name(name: &str) -> Result<Identifier> {
    refuse_wildcard(name)?;
    if let Ok(address) = name.parse::<IpAddr>() {
        bail!("the CSR has the IP address {address} as a DNS name; write it as IP:{address}");
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| {
        let length = label.len();
        (1..=63).contains(&length) && label.bytes().all(is_allowed)
    };
    // A name that ends in a number could be taken for an IPv4 address.
    let last_label = name.rsplit('.').next().unwrap_or_default();
    let ends_in_number = last_label.parse::<u64>().is_ok();
    if name.len() > 253 || !name.split('.').all(is_label) || ends_in_number {
        let name = excerpt(name);
        bail!(
            "the CSR asks for `{name}`, which is not a DNS name; leave out a trailing dot, and write letters beyond ASCII in the xn-- form"
        );
    }
    Ok(Identifier::Dns(name.to_ascii_lowercase()))
}

fn refuse_wildcard(name: &str) -> Result<()> {
    if name.starts_with("*.") {
        let name = excerpt(name);
        let message = format!("the CSR asks for {name}, and http-01 cannot prove a wildcard");
        let hint = "list each host name in the CSR, or use a client that can do dns-01";
        bail!(Failure::new(message).with_hint(hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::x509::X509Name;
    use openssl::x509::extension::SubjectAlternativeName;
    use proptest::prelude::*;

    use super::*;

    fn csr(common_names: &[&str], sans: &[&str]) -> Vec<u8> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut name = X509Name::builder().unwrap();
        for common_name in common_names {
            name.append_entry_by_nid(Nid::COMMONNAME, common_name)
                .unwrap();
        }
        let mut builder = X509Req::builder().unwrap();
        builder.set_subject_name(&name.build()).unwrap();
        builder.set_pubkey(&key).unwrap();
        if !sans.is_empty() {
            let mut extension = SubjectAlternativeName::new();
            for san in sans {
                match san.parse::<IpAddr>() {
                    Ok(_) => extension.ip(san),
                    Err(_) => extension.dns(san),
                };
            }
            let extension = extension.build(&builder.x509v3_context(None)).unwrap();
            let mut extensions = openssl::stack::Stack::new().unwrap();
            extensions.push(extension).unwrap();
            builder.add_extensions(&extensions).unwrap();
        }
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        builder.build().to_der().unwrap()
    }

    fn names(common_names: &[&str], sans: &[&str]) -> Result<Vec<String>> {
        let csr = Csr::parse(&csr(common_names, sans))?;
        Ok(csr.identifiers.iter().map(Identifier::to_string).collect())
    }

    /// Which common names count: one that is a SAN, one that has a dot, one that is all there is.
    #[test]
    fn the_rule_of_the_common_name() {
        let table: [(&[&str], &[&str], &[&str]); 13] = [
            (&[], &["a.test", "b.test"], &["a.test", "b.test"]),
            (&["b.test"], &["a.test", "b.test"], &["b.test", "a.test"]),
            (&["B.Test"], &["a.test", "b.TEST"], &["b.test", "a.test"]),
            (&["c.test"], &["a.test"], &["c.test", "a.test"]),
            (&["My Shop"], &["a.test"], &["a.test"]),
            (&["My Shop Inc."], &["a.test"], &["a.test"]),
            (&["shop"], &["a.test"], &["a.test"]),
            (&["shop"], &["shop", "a.test"], &["shop", "a.test"]),
            (&["shop"], &[], &["shop"]),
            (
                &["10.0.0.1"],
                &["a.test", "10.0.0.1"],
                &["10.0.0.1", "a.test"],
            ),
            (&["10.0.0.1"], &["a.test"], &["a.test"]),
            (&["10.0.0.1"], &[], &["10.0.0.1"]),
            (
                &[],
                &["::1", "0:0::1", "a.test", "A.test"],
                &["::1", "a.test"],
            ),
        ];
        for (common_names, sans, wanted) in table {
            assert_eq!(
                names(common_names, sans).unwrap(),
                wanted,
                "{common_names:?} {sans:?}"
            );
        }
        for (common_names, sans) in [
            (&["My Shop"][..], &[][..]),
            (&["*.a.test"], &["a.test"]),
            (&[], &[]),
        ] {
            assert!(
                names(common_names, sans).is_err(),
                "{common_names:?} {sans:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(crate::property_tests::config())]

        #[test]
        fn any_bytes_are_a_csr_or_refused(bytes: Vec<u8>) {
            prop_assert!(Csr::parse(&bytes).is_err());
        }

        /// A CSR with some bytes changed does not verify, or says the same.
        #[test]
        fn a_damaged_csr_is_refused(place: prop::sample::Index, byte: u8) {
            static WHOLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let whole = WHOLE.get_or_init(|| csr(&["a.test"], &["a.test", "::1"]));
            let mut damaged = whole.clone();
            damaged[place.index(whole.len())] = byte;
            if let Ok(csr) = Csr::parse(&damaged) {
                let names: Vec<String> = csr.identifiers.iter().map(Identifier::to_string).collect();
                prop_assert_eq!(names, ["a.test", "::1"]);
            }
        }

        #[test]
        fn names_are_safe_in_a_url(name in "[-a-z0-9._*]{0,20}|\\PC{0,20}") {
            if let Ok(Identifier::Dns(name)) = checked_dns_name(&name) {
                let url: ureq::http::Uri = format!("http://{name}:80/x").parse().unwrap();
                prop_assert_eq!(url.host(), Some(name.as_str()));
                prop_assert_eq!(url.path(), "/x");
            }
        }
    }
}
