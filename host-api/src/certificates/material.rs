//! The authority and the certificate as they stand in a Secret: reading them, and making them anew. Computes only, but for the random
//! bits of keys.
//!
//! The trap: this holds private keys. It has no `Debug`, and nothing of it goes into a log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::plan::{Change, Leaf, Lifetimes, Signer, Standing, Validity};

/// Keys of the Secret. The first three are what cert-manager writes, too.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";

/// Why something cannot be read or made. Says nothing of any key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The chain is no certificate.
    #[error("the certificate cannot be read")]
    Certificate,
    /// The key is none, or is not that of the certificate.
    #[error("the private key cannot be read, or is not that of the certificate")]
    Key,
    /// The crypto library failed.
    #[error("a key or a certificate could not be made")]
    NotMade,
}

/// What the Secret holds, as PEM.
#[derive(Clone)]
pub struct Material {
    certificate: String,
    key: SecretString,
    authorities: Vec<String>,
    authority_key: Option<SecretString>,
}

/// A certificate that can be shown.
#[derive(Clone)]
pub struct Showable {
    /// The chain and its key.
    pub certified: Arc<CertifiedKey>,
    /// When its certificate is valid.
    pub validity: Validity,
}

impl Showable {
    /// Reads a chain and its key.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, Unusable> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| Unusable::Certificate)?;
        let validity = chain.first().and_then(|leaf| validity(leaf)).ok_or(Unusable::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Unusable::Key)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|_| Unusable::Key)?;
        Ok(Self { certified: Arc::new(certified), validity })
    }
}

impl Material {
    /// Reads a Secret's data; what is missing counts as empty.
    #[must_use]
    pub fn read(data: &BTreeMap<String, ByteString>) -> Self {
        let text = |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned());
        let bundle = text(BUNDLE).unwrap_or_default();
        let authorities = bundle.split_inclusive("-----END CERTIFICATE-----").map(|pem| format!("{}\n", pem.trim()));
        let authorities = authorities.filter(|pem| der(pem).is_some_and(|der| validity(&der).is_some())).collect();
        Self {
            certificate: text(CERTIFICATE).unwrap_or_default(),
            key: text(KEY).unwrap_or_default().into(),
            authorities,
            authority_key: text(AUTHORITY_KEY).map(SecretString::from),
        }
    }

    /// A Secret's data.
    #[must_use]
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let authority_key = self.authority_key.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        [
            (CERTIFICATE, self.certificate.as_str()),
            (KEY, self.key.expose_secret()),
            (BUNDLE, &self.bundle()),
            (AUTHORITY_KEY, authority_key),
        ]
        .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
        .into()
    }

    /// All authorities that are to be trusted, as PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.concat()
    }

    /// The certificate, ready to be shown.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn showable(&self) -> Result<Showable, Unusable> {
        Showable::read(self.certificate.as_bytes(), self.key.expose_secret().as_bytes())
    }

    /// What the plan has to know of it.
    #[must_use]
    pub fn standing(&self, names: &[String]) -> Standing {
        let authorities: Vec<CertificateDer<'_>> = self.authorities.iter().filter_map(|pem| der(pem)).collect();
        let leaf = self.showable().ok().and_then(|showable| {
            let (_, leaf) = X509Certificate::from_der(showable.certified.cert.first()?).ok()?;
            let signed = |authority: &CertificateDer<'_>| {
                let authority = X509Certificate::from_der(authority).map(|(_, authority)| authority);
                authority.is_ok_and(|authority| {
                    authority.subject() == leaf.issuer() && leaf.verify_signature(Some(authority.public_key())).is_ok()
                })
            };
            let issuer = authorities.iter().position(signed);
            Some(Leaf { validity: showable.validity, issuer, is_ours: is_for(&leaf, names) })
        });
        let signs = self.issuer().is_some();
        Standing { leaf, authorities: authorities.iter().filter_map(|authority| validity(authority)).collect(), signs }
    }

    /// Carries a change out.
    ///
    /// # Errors
    /// [`Unusable`] when the crypto library fails.
    pub fn change(&self, change: &Change, now: i64, names: &[String], lifetimes: &Lifetimes) -> Result<Self, Unusable> {
        let kept = change.keep.iter().filter_map(|index| self.authorities.get(*index).cloned());
        let mut changed = Self { authorities: kept.collect(), ..self.clone() };
        let present = self.issuer();
        let made = if change.new_authority { Some(make_authority(now, lifetimes)?) } else { None };
        let signer = match change.sign {
            None => None,
            Some(Signer::Present) => Some((present.as_ref().ok_or(Unusable::NotMade)?, self.newest_end())),
            Some(Signer::New) => made.as_ref().map(|made| (&**made, now + lifetimes.authority)),
        };
        if let Some((signer, end)) = signer {
            let mut validity = Validity::from(now, lifetimes.certificate);
            validity.not_after = validity.not_after.min(end);
            (changed.certificate, changed.key) = make_certificate(signer, validity, names)?;
        }
        if let Some(made) = made {
            changed.authorities.insert(0, made.pem());
            changed.authority_key = Some(made.key().serialize_pem().into());
        }
        Ok(changed)
    }

    /// The newest authority with its key, if that is its own.
    fn issuer(&self) -> Option<Issuer<'static, KeyPair>> {
        let key = KeyPair::from_pem(self.authority_key.as_ref()?.expose_secret()).ok()?;
        let authority = self.authorities.first()?;
        let der = der(authority)?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        if parsed.public_key().subject_public_key.data != key.der_bytes() {
            return None;
        }
        Issuer::from_ca_cert_pem(authority, key).ok()
    }

    fn newest_end(&self) -> i64 {
        let newest = self.authorities.first().and_then(|authority| validity(&der(authority)?));
        newest.map_or(0, |validity| validity.not_after)
    }
}

fn make_authority(now: i64, lifetimes: &Lifetimes) -> Result<CertifiedIssuer<'static, KeyPair>, Unusable> {
    // A name of its own: whoever verifies looks for authorities by name.
    let mut params = parameters(&format!("k3k-expose {now}"), Validity::from(now, lifetimes.authority))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(|_| Unusable::NotMade)?;
    CertifiedIssuer::self_signed(params, key).map_err(|_| Unusable::NotMade)
}

fn make_certificate(
    issuer: &Issuer<'_, KeyPair>,
    validity: Validity,
    names: &[String],
) -> Result<(String, SecretString), Unusable> {
    let mut params = parameters("k3k-expose-host-api", validity)?;
    params.subject_alt_names = CertificateParams::new(names).map_err(|_| Unusable::NotMade)?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(|_| Unusable::NotMade)?;
    let certificate = params.signed_by(&key, issuer).map_err(|_| Unusable::NotMade)?;
    Ok((certificate.pem(), key.serialize_pem().into()))
}

fn parameters(name: &str, validity: Validity) -> Result<CertificateParams, Unusable> {
    let time = |at| OffsetDateTime::from_unix_timestamp(at).map_err(|_| Unusable::NotMade);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = time(validity.not_before)?;
    params.not_after = time(validity.not_after)?;
    Ok(params)
}

fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    Some(Validity { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
}

/// Whether a certificate is for exactly these names and addresses.
fn is_for(certificate: &X509Certificate<'_>, names: &[String]) -> bool {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return false;
    };
    let said = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    });
    said.collect::<BTreeSet<_>>() == names.iter().cloned().collect()
}

fn der(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

#[cfg(test)]
mod tests;
