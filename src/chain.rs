//! The issued chain: whether it is what was ordered, before a byte of it goes out.

use anyhow::{Context, Result, bail, ensure};
use log::warn;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::x509::{X509, X509NameRef, X509Ref};

use crate::account_key::base64url;
use crate::csr::{self, Csr};
use crate::input;
use crate::resources::Identifier;

/// A certificate and those of its issuers, in the order the CA gave them; never empty.
pub struct Chain(Vec<X509>);

impl Chain {
    /// Parses a chain of PEM certificates (RFC 8555 §9.1).
    ///
    /// # Errors
    /// There is none, one is damaged, or a block of another kind is among them (§11.4).
    pub fn parse(pem: &[u8]) -> Result<Chain> {
        let text = String::from_utf8_lossy(pem);
        let mut labels = input::pem_labels(&text);
        if let Some(label) = labels.find(|label| *label != "CERTIFICATE") {
            bail!("the chain has a {label} in it, where nothing but certificates belongs");
        }
        let count = input::pem_labels(&text).count();
        ensure!(count > 0, "there is no certificate in the chain");
        let certificates =
            X509::stack_from_pem(pem).context("a certificate of the chain is damaged")?;
        let is_whole = certificates.len() == count;
        ensure!(is_whole, "a certificate of the chain is cut off");
        Ok(Chain(certificates))
    }

    /// The certificates in a file of the user's, which may hold other things too.
    pub fn of_file(pem: &[u8]) -> Option<Chain> {
        let certificates = X509::stack_from_pem(pem).ok();
        certificates.filter(|found| !found.is_empty()).map(Chain)
    }

    /// What makes the certificate useless for the CSR, if anything: another key, a missing name, an
    /// end in the past.
    ///
    /// # Errors
    /// OpenSSL's own.
    pub fn flaw(&self, csr: &Csr) -> Result<Option<String>> {
        let (leaf, names) = (self.leaf(), names(self.leaf()));
        if !leaf.public_key().is_ok_and(|key| key.public_eq(&csr.key)) {
            return Ok(Some(
                "the certificate is for another key than the CSR's".to_owned(),
            ));
        }
        let missing = csr.identifiers.iter().find(|name| !names.contains(name));
        let (now, until) = (Asn1Time::days_from_now(0)?, leaf.not_after());
        let clock = format!("by this machine's clock it is {}", now.as_ref());
        let ended = || format!("the certificate ended at {until}; {clock}");
        let missing = missing
            .map(|name| format!("the certificate is not for {name}, which the CSR asks for"));
        Ok(missing.or_else(|| self.is_expired().then(ended)))
    }

    /// Looks whether the chain is for the CSR and holds together. What would make it useless is an
    /// error; all else is a warning, for an issued certificate is not to be thrown away lightly.
    ///
    /// # Errors
    /// A [`flaw`](Chain::flaw), or a signature that is not its issuer's.
    pub fn check(&self, csr: &Csr) -> Result<()> {
        if let Some(flaw) = self.flaw(csr)? {
            bail!(flaw);
        }
        let (leaf, now) = (self.leaf(), Asn1Time::days_from_now(0)?);
        let by_name = |issuer: &&X509| is_same(issuer.subject_name(), leaf.issuer_name());
        let issuers = self.0[1..].iter().filter(by_name);
        let verdicts: Vec<_> = issuers.map(|issuer| is_signed_by(leaf, issuer)).collect();
        let is_any = |verdict| verdicts.contains(&verdict);
        if is_any(Some(false)) && !is_any(Some(true)) {
            bail!("the certificate's signature is not its issuer's");
        }
        if is_any(None) && !is_any(Some(true)) {
            warn!("the certificate's signature is of a kind that OpenSSL cannot verify");
        }
        let from = leaf.not_before();
        if *from > *now {
            let now = now.as_ref();
            warn!(
                "the certificate begins at {from}; by this machine's clock it is {now}, is that right?"
            );
        }
        for extra in self.extra_names(csr) {
            warn!("the certificate is for {extra} too, which the CSR does not ask for");
        }
        for pair in self.0.windows(2) {
            let name = common_name(pair[0].subject_name());
            if is_signed_by(&pair[0], &pair[1]) == Some(false) {
                warn!("the chain is out of order: `{name}` is not signed by the one after it");
            }
        }
        Ok(())
    }

    /// The chain as it goes out: the CA's certificates in the CA's order, and nothing else.
    ///
    /// # Errors
    /// OpenSSL's own.
    pub fn to_pem(&self) -> Result<String> {
        let blocks: Result<Vec<_>, _> = self.0.iter().map(|one| one.to_pem()).collect();
        Ok(String::from_utf8(blocks?.concat())?)
    }

    /// One line on what was issued.
    pub fn summary(&self) -> String {
        let (leaf, count) = (self.leaf(), names(self.leaf()).len());
        let names = if count == 1 { "name" } else { "names" };
        let (until, issuer) = (leaf.not_after(), common_name(leaf.issuer_name()));
        format!("Valid until {until}, issued by {issuer}, {count} {names}")
    }

    /// Whether the topmost certificate was issued by, or is, the one with this common name.
    pub fn leads_to(&self, name: &str) -> bool {
        let top = &self.0[self.0.len() - 1];
        [top.issuer_name(), top.subject_name()]
            .iter()
            .any(|one| common_name(one) == name)
    }

    /// The common name of the issuer of the topmost certificate.
    pub fn root(&self) -> String {
        common_name(self.0[self.0.len() - 1].issuer_name())
    }

    /// The names that the certificate is for and the CSR does not ask for.
    pub fn extra_names(&self, csr: &Csr) -> Vec<Identifier> {
        let is_extra = |name: &Identifier| !csr.identifiers.contains(name);
        names(self.leaf()).into_iter().filter(is_extra).collect()
    }

    /// When the certificate begins and ends, in Unix time.
    ///
    /// # Errors
    /// OpenSSL's own.
    pub fn validity(&self) -> Result<(i64, i64), ErrorStack> {
        Ok((
            unix(self.leaf().not_before())?,
            unix(self.leaf().not_after())?,
        ))
    }

    /// How renewal information names the certificate (RFC 9773 §4.1): by its issuer's key and its
    /// serial number, whose first byte is zero where the next would make the number negative.
    pub fn certificate_id(&self) -> Option<String> {
        let issuer = base64url(self.leaf().authority_key_id()?.as_slice());
        let mut serial = self.leaf().serial_number().to_bn().ok()?.to_vec();
        if serial.first().is_none_or(|byte| *byte >= 0x80) {
            serial.insert(0, 0);
        }
        Some(format!("{issuer}.{}", base64url(serial)))
    }

    /// Whether the certificate has ended by this machine's clock.
    pub fn is_expired(&self) -> bool {
        Asn1Time::days_from_now(0).is_ok_and(|now| *self.leaf().not_after() <= *now)
    }

    /// Whether a test CA issued it: Let's Encrypt's staging says so in its issuers' names.
    pub fn is_staging(&self) -> bool {
        let parts = self.leaf().issuer_name().entries();
        let mut texts = parts.filter_map(|part| part.data().to_string().ok());
        texts.any(|text| text.starts_with("(STAGING)"))
    }

    fn leaf(&self) -> &X509Ref {
        &self.0[0]
    }
}

/// Seconds since 1970.
///
/// # Errors
/// The time is none.
pub fn unix(time: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(since.days) * 86_400 + i64::from(since.secs))
}

/// The names that a certificate is for. Others than DNS names and IP addresses are left out.
fn names(certificate: &X509Ref) -> Vec<Identifier> {
    let names = certificate.subject_alt_names();
    names.iter().flatten().filter_map(csr::identifier).collect()
}

/// None where OpenSSL does not know the algorithm.
fn is_signed_by(certificate: &X509Ref, issuer: &X509Ref) -> Option<bool> {
    let verified = certificate.verify(&*issuer.public_key().ok()?);
    // A signature that is merely wrong leaves its error behind, for a later call to stumble over.
    let left = ErrorStack::get();
    let errors = verified.as_ref().err().unwrap_or(&left).errors().iter();
    let mut reasons = errors.filter_map(|error| error.reason());
    let is_unknown = reasons.any(|why| why.contains("unknown") || why.contains("unsupported"));
    (!is_unknown).then_some(verified.is_ok_and(|is_good| is_good))
}

fn is_same(a: &X509NameRef, b: &X509NameRef) -> bool {
    a.try_cmp(b).is_ok_and(|order| order.is_eq())
}

fn common_name(name: &X509NameRef) -> String {
    let mut parts = name.entries_by_nid(Nid::COMMONNAME).chain(name.entries());
    let text = parts.next().and_then(|part| part.data().to_string().ok());
    text.map_or("nobody".to_owned(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

    use std::sync::OnceLock;

    use openssl::bn::BigNum;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::x509::X509Extension;
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

    proptest! {
        #![proptest_config(crate::tests::cases())]

        #[test]
        fn any_bytes_are_no_chain(bytes: Vec<u8>) {
            prop_assert!(Chain::parse(&bytes).is_err() && Chain::of_file(&bytes).is_none());
        }

        /// A chain with some bytes changed is refused, or can be looked at all the same.
        #[test]
        fn a_damaged_chain_does_no_harm(place: prop::sample::Index, byte: u8) {
            static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
            let whole = WHOLE.get_or_init(|| [example(), example()].map(|one| one.to_pem().unwrap()).concat());
            let mut damaged = whole.clone();
            damaged[place.index(whole.len())] = byte;
            if let Ok(chain) = Chain::parse(&damaged) {
                let _ = (chain.summary(), chain.certificate_id(), chain.validity(), chain.is_staging());
                let _ = (chain.leads_to("x"), is_signed_by(&chain.0[0], &chain.0[chain.0.len() - 1]));
                prop_assert!(Chain::parse(chain.to_pem().unwrap().as_bytes()).is_ok());
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
            prop_assert!(Chain::parse(text.as_bytes()).is_err());
        }
    }
}
