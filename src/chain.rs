//! A certificate chain, issued just now or found in a file: what is in it, and whether it is fit for a
//! CSR.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use log::warn;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::x509::{X509, X509NameRef, X509Ref};

use crate::acme::account_key::base64url;
use crate::acme::resources::Identifier;
use crate::csr::{self, Csr};
use crate::files;
use crate::text::{excerpt, first_few};
use crate::time;

/// How far in the future a certificate may begin, in seconds. The clocks of this machine and of the CA may differ a little.
const MAX_BEGIN_AHEAD: i64 = 86_400;

/// The certificate (the leaf), followed by those of its issuers in the CA's order. Never empty. (In a user's
/// file, unrelated certificates may follow the first.)
pub struct Chain(Vec<X509>);

/// What makes a certificate useless for a CSR.
#[derive(Debug)]
pub enum Defect {
    /// It is for another key.
    AnotherKey,
    /// It lacks this name of the CSR.
    MissingName(Identifier),
    /// It has expired, at this time.
    Expired(String),
    /// It begins too far in the future, at this time.
    NotYetValid(String),
    /// The time at which it begins or ends is malformed.
    MalformedTime,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Defect::AnotherKey => f.write_str("the certificate is for another key than the CSR's"),
            Defect::MissingName(name) => {
                write!(
                    f,
                    "the certificate is not for {name}, which the CSR asks for"
                )
            }
            Defect::NotYetValid(not_before) => {
                let now = time::to_text(time::now());
                write!(
                    f,
                    "the certificate begins at {not_before}; by this machine's clock it is {now}"
                )
            }
            Defect::MalformedTime => {
                f.write_str("the time at which the certificate begins or ends is malformed")
            }
            Defect::Expired(not_after) => {
                let now = time::to_text(time::now());
                write!(
                    f,
                    "the certificate ended at {not_after}; by this machine's clock it is {now}"
                )
            }
        }
    }
}

impl std::error::Error for Defect {}

impl Chain {
    /// Parses what a CA sends as a chain (RFC 8555 §9.1). Text around the PEM blocks is dropped.
    ///
    /// # Errors
    /// There is no certificate, one is damaged, or there is a PEM block of another kind (§11.4).
    pub fn from_ca(pem: &[u8]) -> Result<Chain> {
        files::check_not_encrypted(pem).context("the chain cannot be used")?;
        let text = String::from_utf8_lossy(pem);
        let mut block_count = 0;
        for label in files::pem_labels(&text) {
            if label != "CERTIFICATE" {
                bail!("the chain has a {label} in it, where nothing but certificates belongs");
            }
            block_count += 1;
        }
        ensure!(block_count > 0, "there is no certificate in the chain");
        // Some versions of OpenSSL stop without an error where a block has no end.
        let certificates = X509::stack_from_pem(pem).unwrap_or_default();
        ensure!(
            certificates.len() == block_count,
            "a certificate of the chain is damaged or cut off"
        );
        Ok(Chain(certificates))
    }

    /// Returns the certificates in a file that need not hold a chain. `None` if there are none, or one is
    /// damaged or encrypted. (A block whose first line is cut off is not noticed.)
    pub fn from_file(pem: &[u8]) -> Option<Chain> {
        files::check_not_encrypted(pem).ok()?;
        let certificates = X509::stack_from_pem(pem).ok()?;
        if certificates.is_empty() {
            None
        } else {
            Some(Chain(certificates))
        }
    }

    /// Returns what makes the certificate useless for the CSR, if anything does.
    pub fn defect(&self, csr: &Csr) -> Option<Defect> {
        let leaf = self.leaf();
        let is_for_key = leaf.public_key().is_ok_and(|key| key.public_eq(&csr.key));
        if !is_for_key {
            return Some(Defect::AnotherKey);
        }
        let names = certificate_names(leaf);
        for identifier in &csr.identifiers {
            if !names.contains(identifier) {
                return Some(Defect::MissingName(identifier.clone()));
            }
        }
        self.defect_of_lifetime()
    }

    fn defect_of_lifetime(&self) -> Option<Defect> {
        let (Ok(begin), Ok(end)) = (self.not_before(), self.not_after()) else {
            return Some(Defect::MalformedTime);
        };
        let now = time::now();
        if end <= now {
            Some(Defect::Expired(time::to_text(end)))
        } else if begin > now + MAX_BEGIN_AHEAD {
            Some(Defect::NotYetValid(time::to_text(begin)))
        } else {
            None
        }
    }

    /// Checks that an issued chain is fit for the CSR.
    ///
    /// # Errors
    /// It has a [`defect`](Chain::defect), or the leaf is not signed by the certificate that has its issuer's name.
    pub fn check(&self, csr: &Csr) -> Result<()> {
        if let Some(defect) = self.defect(csr) {
            return Err(defect.into());
        }
        ensure!(
            self.leaf_signature() != LeafSignature::Bad,
            "the certificate was not signed by its issuer"
        );
        Ok(())
    }

    /// Warns of oddities. They are no errors, because an issued certificate is not thrown away lightly.
    pub fn warn_of_oddities(&self, csr: &Csr) {
        if self.leaf_signature() == LeafSignature::OfUnknownKind {
            warn!("the certificate's signature is of a kind that OpenSSL cannot verify");
        }
        match self.not_before() {
            Ok(begin) if begin > time::now() => {
                let not_yet = Defect::NotYetValid(time::to_text(begin));
                warn!("{not_yet}, is that right?");
            }
            _ => {}
        }
        let extra = self.extra_names(csr);
        if !extra.is_empty() {
            let names = first_few(&extra);
            warn!("the certificate is for names that the CSR does not ask for: {names}");
        }
        let is_broken = |pair: &&[X509]| check_signature(&pair[0], &pair[1]) == Signature::Bad;
        if let Some(pair) = self.0.windows(2).find(is_broken) {
            let name = excerpt(&short_name(pair[0].subject_name()));
            warn!("the chain is out of order: `{name}` is not signed by the certificate after it");
        }
    }

    /// Checks the leaf's signature by every certificate of the chain that has its issuer's name. One that fits
    /// is enough.
    fn leaf_signature(&self) -> LeafSignature {
        let leaf = self.leaf();
        let mut result = LeafSignature::NoIssuer;
        for other in &self.0[1..] {
            if is_same_name(other.subject_name(), leaf.issuer_name()) {
                match check_signature(leaf, other) {
                    Signature::Good => return LeafSignature::Good,
                    Signature::Bad => result = LeafSignature::Bad,
                    Signature::OfUnknownKind if result != LeafSignature::Bad => {
                        result = LeafSignature::OfUnknownKind;
                    }
                    Signature::OfUnknownKind => {}
                }
            }
        }
        result
    }

    /// Returns the PEM of all certificates, in the CA's order.
    ///
    /// # Errors
    /// OpenSSL cannot encode one.
    pub fn to_pem(&self) -> Result<String> {
        let mut pem = String::new();
        for certificate in &self.0 {
            pem += &String::from_utf8(certificate.to_pem()?)?;
        }
        Ok(pem)
    }

    /// Returns one line on what was issued.
    pub fn summary(&self) -> String {
        let leaf = self.leaf();
        let not_after = leaf.not_after();
        let issuer = excerpt(&short_name(leaf.issuer_name()));
        let count = certificate_names(leaf).len();
        let unit = if count == 1 { "name" } else { "names" };
        format!("Valid until {not_after}, issued by {issuer}, {count} {unit}")
    }

    /// Returns one line on what [`check`](Chain::check) has found to be right, and what it could not look at.
    pub fn checks(&self) -> &'static str {
        match self.leaf_signature() {
            LeafSignature::Good => "Checked: key, names, dates and signature",
            LeafSignature::NoIssuer => {
                "Checked: key, names and dates; not the signature, because the chain lacks its issuer"
            }
            LeafSignature::OfUnknownKind => "Checked: key, names and dates; not the signature",
            // Such a chain does not pass the check.
            LeafSignature::Bad => "Checked: key, names and dates; the signature is wrong",
        }
    }

    /// Returns the name of the issuer of the topmost certificate: the root to which the chain leads.
    pub fn top_issuer(&self) -> String {
        short_name(self.top().issuer_name())
    }

    /// Returns the name of the topmost certificate itself.
    fn top_subject(&self) -> String {
        short_name(self.top().subject_name())
    }

    /// Returns the names that the certificate is for but the CSR does not ask for.
    pub fn extra_names(&self, csr: &Csr) -> Vec<Identifier> {
        let mut extra = certificate_names(self.leaf());
        extra.retain(|name| !csr.identifiers.contains(name));
        extra
    }

    /// Returns the Unix time at which the certificate becomes valid.
    ///
    /// # Errors
    /// The certificate's time is malformed.
    pub fn not_before(&self) -> Result<i64, ErrorStack> {
        time::from_asn1(self.leaf().not_before())
    }

    /// Returns the Unix time at which the certificate expires.
    ///
    /// # Errors
    /// The certificate's time is malformed.
    pub fn not_after(&self) -> Result<i64, ErrorStack> {
        time::from_asn1(self.leaf().not_after())
    }

    /// Returns the identifier by which the CA is asked when to renew (RFC 9773 §4.1): its issuer's key
    /// and its serial number. `None` if the certificate does not identify its issuer's key.
    pub fn certificate_id(&self) -> Option<String> {
        let key_identifier = base64url(self.leaf().authority_key_id()?.as_slice());
        let mut serial = self.leaf().serial_number().to_bn().ok()?.to_vec();
        // The identifier has the serial number as a DER integer. Zero is one zero byte, and a zero byte comes
        // before a first bit that would make the number negative.
        let is_zero = serial.is_empty();
        if is_zero || serial[0] >= 0x80 {
            serial.insert(0, 0);
        }
        Some(format!("{key_identifier}.{}", base64url(serial)))
    }

    /// Whether the certificate has expired by this machine's clock.
    pub fn is_expired(&self) -> bool {
        self.not_after().is_ok_and(|end| end <= time::now())
    }

    /// Whether Let's Encrypt's staging issued the certificate. It says so in the name of the issuer.
    pub fn is_staging(&self) -> bool {
        let mut entries = self.leaf().issuer_name().entries();
        entries.any(|entry| {
            let text = entry.data().to_string();
            text.is_ok_and(|text| text.starts_with("(STAGING)"))
        })
    }

    fn leaf(&self) -> &X509Ref {
        &self.0[0]
    }

    fn top(&self) -> &X509Ref {
        &self.0[self.0.len() - 1]
    }
}

/// Returns the index of the first chain whose topmost certificate was issued by `name`; else of the first whose topmost
/// certificate is `name`. (A root that another root has signed is the topmost certificate of one chain and the issuer of
/// another's.)
pub fn find_preferred(chains: &[Chain], name: &str) -> Option<usize> {
    let by_issuer = chains.iter().position(|chain| chain.top_issuer() == name);
    by_issuer.or_else(|| chains.iter().position(|chain| chain.top_subject() == name))
}

/// Returns the DNS names and IP addresses that a certificate is for.
fn certificate_names(certificate: &X509Ref) -> Vec<Identifier> {
    let names = certificate.subject_alt_names();
    names
        .iter()
        .flatten()
        .filter_map(csr::from_general_name)
        .collect()
}

/// The result of checking the leaf's signature by the other certificates of the chain.
#[derive(Clone, Copy, PartialEq)]
enum LeafSignature {
    Good,
    Bad,
    OfUnknownKind,
    /// None of them has the name of the leaf's issuer.
    NoIssuer,
}

/// The result of checking a signature.
#[derive(Clone, Copy, PartialEq)]
enum Signature {
    Good,
    Bad,
    /// OpenSSL does not know the algorithm, or cannot read the issuer's key.
    OfUnknownKind,
}

/// Checks whether `issuer` has signed `certificate`.
fn check_signature(certificate: &X509Ref, issuer: &X509Ref) -> Signature {
    let Ok(key) = issuer.public_key() else {
        return Signature::OfUnknownKind;
    };
    let errors = match certificate.verify(&key) {
        Ok(true) => return Signature::Good,
        // The crate leaves OpenSSL's reasons in the error queue, where a later call would find them.
        Ok(false) => ErrorStack::get(),
        Err(errors) => errors,
    };
    if is_about_algorithm(&errors) {
        Signature::OfUnknownKind
    } else {
        Signature::Bad
    }
}

/// Whether OpenSSL complains that it does not know an algorithm, such as `unknown message digest algorithm`.
fn is_about_algorithm(errors: &ErrorStack) -> bool {
    let mut reasons = errors.errors().iter().filter_map(|error| error.reason());
    reasons.any(|reason| reason.contains("unknown") || reason.contains("unsupported"))
}

fn is_same_name(one: &X509NameRef, other: &X509NameRef) -> bool {
    one.try_cmp(other).is_ok_and(|order| order.is_eq())
}

/// Returns the common name, or else the first entry of the name.
fn short_name(name: &X509NameRef) -> String {
    let mut entries = name.entries_by_nid(Nid::COMMONNAME).chain(name.entries());
    match entries.next().map(|entry| entry.data().to_string()) {
        Some(Ok(text)) => text.to_string(),
        _ => "(no name)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use std::sync::OnceLock;

    use openssl::asn1::Asn1Time;
    use openssl::bn::BigNum;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::x509::{X509Extension, X509Name};
    use proptest::prelude::*;

    use super::*;

    /// A certificate with the issuer's key and the serial number of RFC 9773's example.
    fn example() -> X509 {
        let key = PKey::generate_ed25519().unwrap();
        let mut builder = X509::builder().unwrap();
        let serial = BigNum::from_slice(&[0x87, 0x65, 0x43, 0x21]).unwrap();
        builder
            .set_serial_number(&serial.to_asn1_integer().unwrap())
            .unwrap();
        let issuer = b"\x30\x16\x80\x14\x69\x88\x5b\x6b\x87\x46\x40\x41\xe1\xb3\x7b\x84\x7b\xa0\xae\x2c\xde\x01\xc8\xd4";
        let issuer = openssl::asn1::Asn1OctetString::new_from_bytes(issuer).unwrap();
        let oid = openssl::asn1::Asn1Object::from_str("2.5.29.35").unwrap();
        builder
            .append_extension(X509Extension::new_from_der(&oid, false, &issuer).unwrap())
            .unwrap();
        builder
            .set_not_before(&Asn1Time::days_from_now(0).unwrap())
            .unwrap();
        builder
            .set_not_after(&Asn1Time::days_from_now(30).unwrap())
            .unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.sign(&key, MessageDigest::null()).unwrap();
        builder.build()
    }

    /// RFC 9773, section 4.1.
    #[test]
    fn the_identifier_of_rfc_9773() {
        let id = Chain(vec![example()]).certificate_id();
        assert_eq!(id.as_deref(), Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"));
    }

    /// A chain of certificates with these names, each issued by the next one, and the last by `root`.
    fn chain_of(names: &[&str], root: &str) -> Chain {
        let key = PKey::generate_ed25519().unwrap();
        let named = |name: &str| {
            let mut builder = X509Name::builder().unwrap();
            builder.append_entry_by_text("CN", name).unwrap();
            builder.build()
        };
        let issuers = names.iter().skip(1).chain([&root]);
        let certificates = names.iter().zip(issuers).map(|(subject, issuer)| {
            let mut builder = X509::builder().unwrap();
            builder.set_subject_name(&named(subject)).unwrap();
            builder.set_issuer_name(&named(issuer)).unwrap();
            builder.set_pubkey(&key).unwrap();
            builder.sign(&key, MessageDigest::null()).unwrap();
            builder.build()
        });
        Chain(certificates.collect())
    }

    /// Let's Encrypt's chains as they are since 2026, in any order; and those of a plain CA.
    #[test]
    fn preferred_chains() {
        const X1: &str = "ISRG Root X1";
        const X2: &str = "ISRG Root X2";
        let ecdsa_long: (&[&str], &str) = (&["EE", "YE1", "Root YE", X2], X1);
        let ecdsa_middle: (&[&str], &str) = (&["EE", "YE1", "Root YE"], X2);
        let ecdsa_short: (&[&str], &str) = (&["EE", "YE1"], "Root YE");
        let rsa_long: (&[&str], &str) = (&["EE", "YR1", "Root YR"], X1);
        let rsa_short: (&[&str], &str) = (&["EE", "YR1"], "Root YR");
        let plain: (&[&str], &str) = (&["EE", "Sub"], "Root");
        let with_root: (&[&str], &str) = (&["EE", "Sub", "Root"], "Root");
        for (preferred, offered, expected) in [
            // By the issuer, though it is the topmost certificate of the default chain.
            (X2, vec![ecdsa_long, ecdsa_middle, ecdsa_short], Some(1)),
            (X2, vec![ecdsa_long, ecdsa_short, ecdsa_middle], Some(2)),
            (X2, vec![ecdsa_middle, ecdsa_long, ecdsa_short], Some(0)),
            (X1, vec![ecdsa_long, ecdsa_middle, ecdsa_short], Some(0)),
            (X1, vec![ecdsa_short, ecdsa_middle, ecdsa_long], Some(2)),
            (
                "Root YE",
                vec![ecdsa_long, ecdsa_middle, ecdsa_short],
                Some(2),
            ),
            (
                "Root YE",
                vec![ecdsa_short, ecdsa_long, ecdsa_middle],
                Some(0),
            ),
            (X1, vec![rsa_long, rsa_short], Some(0)),
            (X1, vec![rsa_short, rsa_long], Some(1)),
            ("Root YR", vec![rsa_long, rsa_short], Some(1)),
            // Only by the topmost certificate.
            (X2, vec![ecdsa_short, ecdsa_long], Some(1)),
            ("Root YE", vec![ecdsa_long, ecdsa_middle], Some(1)),
            ("Root YR", vec![rsa_long], Some(0)),
            ("Sub", vec![plain], Some(0)),
            ("Root", vec![plain, with_root], Some(0)),
            ("Root", vec![with_root, plain], Some(0)),
            // Not at all.
            (X2, vec![rsa_long, rsa_short], None),
            ("YE1", vec![ecdsa_long, ecdsa_middle], None),
            ("EE", vec![ecdsa_long, ecdsa_middle, ecdsa_short], None),
            ("isrg root x1", vec![ecdsa_long], None),
        ] {
            let chains: Vec<Chain> = offered
                .iter()
                .map(|(names, root)| chain_of(names, root))
                .collect();
            let found = find_preferred(&chains, preferred);
            assert_eq!(found, expected, "{preferred} {offered:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::property_tests::config())]

        #[test]
        fn any_bytes_are_no_chain(bytes: Vec<u8>) {
            prop_assert!(Chain::from_ca(&bytes).is_err() && Chain::from_file(&bytes).is_none());
        }

        /// A chain with some bytes changed is refused, or can be looked at all the same.
        #[test]
        fn a_damaged_chain_does_no_harm(place: prop::sample::Index, byte: u8) {
            static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
            let whole = WHOLE.get_or_init(|| [example(), example()].map(|one| one.to_pem().unwrap()).concat());
            let mut damaged = whole.clone();
            damaged[place.index(whole.len())] = byte;
            if let Ok(chain) = Chain::from_ca(&damaged) {
                let _ = (chain.summary(), chain.certificate_id(), chain.not_after(), chain.is_staging());
                let _ = (chain.top_issuer(), check_signature(chain.leaf(), chain.top()));
                prop_assert!(Chain::from_ca(chain.to_pem().unwrap().as_bytes()).is_ok());
            }
        }

        /// Text with the look of PEM: no chain comes of it unless every block is a certificate.
        #[test]
        fn any_pem_is_no_chain(
            blocks in prop::collection::vec(
                ("-----BEGIN (CERTIFICATE|PRIVATE KEY|X509 CRL|)-----\n?", "[A-Za-z0-9+/=\n]{0,80}", "(-----END CERTIFICATE-----\n)?"),
                0..5,
            ),
        ) {
            let text: String = blocks.iter().map(|(begin, body, end)| format!("{begin}{body}\n{end}")).collect();
            prop_assert!(Chain::from_ca(text.as_bytes()).is_err());
        }
    }
}
