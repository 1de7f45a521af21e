//! The certificate signing request: which names it asks for, and whether any CA could grant it.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use log::{info, warn};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::x509::{GeneralNameRef, X509, X509Req, X509ReqRef};

use crate::input;
use crate::resources::Identifier;

/// The object identifier of subjectAltName as it stands in an extension (RFC 5280 §4.2.1.6).
const SUBJECT_ALT_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];

/// A CSR that verifies, and the names it asks for.
pub struct Csr {
    request: X509Req,
    /// The key that the certificate will be for.
    pub key: PKey<Public>,
    /// The names: the common name first where it counts, then the SANs in their order, each once.
    pub identifiers: Vec<Identifier>,
}

impl Csr {
    /// Reads a CSR in PEM or DER.
    ///
    /// # Errors
    /// One that names the file, where it is no CSR, does not verify, or asks for names that cannot
    /// be had by http-01.
    pub fn read(path: &Path) -> Result<Csr> {
        input::load(path, |content, _| Csr::parse(content))
    }

    fn parse(content: &[u8]) -> Result<Csr> {
        let request = X509Req::from_pem(content).or_else(|_| X509Req::from_der(content));
        let request = request.ok();
        let request = request.with_context(|| input::unusable("CSR", content))?;
        let key = request.public_key().ok();
        let key = key.context("the CSR's key is of an unknown kind")?;
        if !request.verify(&key).unwrap_or(false) {
            bail!("the CSR's signature does not verify, so the file is damaged");
        }
        let identifiers = identifiers(&request)?;
        Ok(Csr {
            request,
            key,
            identifiers,
        })
    }

    /// The request as the CA gets it (RFC 8555 §7.4).
    ///
    /// # Errors
    /// OpenSSL's own.
    pub fn to_der(&self) -> Result<Vec<u8>, ErrorStack> {
        self.request.to_der()
    }
}

fn identifiers(request: &X509ReqRef) -> Result<Vec<Identifier>> {
    let (alternatives, mut names) = (subject_alternatives(request)?, Vec::new());
    for entry in request.subject_name().entries_by_nid(Nid::COMMONNAME) {
        let text = entry.data().to_string()?;
        let address = text.parse().map(Identifier::Ip);
        let name = address.or_else(|_| dns_name(&text));
        let is_dotted = text.contains('.') && matches!(name, Ok(Identifier::Dns(_)));
        match name {
            Ok(name) if alternatives.contains(&name) => names.push(name),
            Ok(name) if alternatives.is_empty() || is_dotted => {
                let told = "is the CSR's common name and no subject alternative name";
                warn!("{name} {told}; some CAs (Let's Encrypt) refuse that");
                names.push(name);
            }
            Err(reason) if alternatives.is_empty() || text.starts_with("*.") => return Err(reason),
            _ => info!("Ignoring the common name `{text}`, which is no host name"),
        }
    }
    names.extend(alternatives);
    let mut once = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    if once.is_empty() {
        bail!("the CSR asks for no names, neither by common name nor by SAN");
    }
    Ok(once)
}

/// The names of the SAN extension, in order.
fn subject_alternatives(request: &X509ReqRef) -> Result<Vec<Identifier>> {
    let extensions = match request.extensions() {
        Ok(extensions) => extensions,
        // OpenSSL says so where there are none.
        Err(error) if error.errors().is_empty() => return Ok(Vec::new()),
        Err(_) => bail!("the CSR's extensions are damaged"),
    };
    // OpenSSL's bindings read SANs from certificates only, so they are put into one for a moment.
    let (mut carrier, mut count) = (X509::builder()?, 0);
    for extension in &extensions {
        // The identifier comes first, after a tag and a length of up to five bytes.
        let der = extension.to_der()?;
        let mut starts = der.windows(SUBJECT_ALT_NAME.len()).take(7);
        if starts.any(|bytes| bytes == SUBJECT_ALT_NAME) {
            carrier.append_extension2(extension)?;
            count += 1;
        }
    }
    let names = carrier.build().subject_alt_names();
    if count > 0 && names.is_none() {
        bail!("the CSR's subjectAltName extension is damaged, or there are {count} of it");
    }
    let mut identifiers = Vec::new();
    for name in names.iter().flatten() {
        match identifier(name).context("the CSR asks for a name that is neither DNS name nor IP")? {
            Identifier::Dns(name) => identifiers.push(dns_name(&name)?),
            address => identifiers.push(address),
        }
    }
    Ok(identifiers)
}

/// A SAN of a certificate or CSR as an identifier, if it is a DNS name or an IP address.
pub fn identifier(name: &GeneralNameRef) -> Option<Identifier> {
    if let Some(dns) = name.dnsname() {
        return Some(Identifier::Dns(dns.to_ascii_lowercase()));
    }
    let bytes = name.ipaddress()?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    Some(Identifier::Ip(v4.or(v6).ok()?))
}

/// A DNS name in lower case, if a certificate can be had for it by http-01.
fn dns_name(name: &str) -> Result<Identifier> {
    if name.starts_with("*.") {
        bail!("the CSR asks for {name}, and http-01 cannot prove a wildcard");
    }
    let is_ldh = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_ldh);
    let last = name.split('.').next_back().unwrap_or_default();
    let is_numeric = last.parse::<u64>().is_ok();
    if name.len() > 253 || !name.split('.').all(is_label) || is_numeric {
        bail!("the CSR asks for `{name}`, which is no DNS name (in its xn-- form, if any)");
    }
    Ok(Identifier::Dns(name.to_ascii_lowercase()))
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
        #![proptest_config(crate::tests::cases())]

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
            if let Ok(Identifier::Dns(name)) = dns_name(&name) {
                let url: ureq::http::Uri = format!("http://{name}:80/x").parse().unwrap();
                prop_assert_eq!(url.host(), Some(name.as_str()));
                prop_assert_eq!(url.path(), "/x");
            }
        }
    }
}
