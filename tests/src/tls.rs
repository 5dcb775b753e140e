//! Keys and certificates: an authority, leaves for loopback servers, client certificates, ServiceAccount keys.
//!
//! One authority per server under test, made before it starts, so that its certificate stays the same over restarts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};

/// A certificate authority that lives as long as this value.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// Where a server finds its certificate and its clients the authority.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
}

/// Installs the one TLS provider; every way into rustls needs it, and only the first call counts.
pub fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl Authority {
    /// Makes an authority with this common name.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// The authority's certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for loopback: 127.0.0.1 and localhost.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn loopback_leaf(&self) -> anyhow::Result<Leaf> {
        self.leaf(&["127.0.0.1", "localhost"])
    }

    /// A server certificate for a host name.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn server_leaf(&self, host: &str) -> anyhow::Result<Leaf> {
        self.leaf(&[host])
    }

    /// A client certificate by which an API server knows this user and group.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn client_leaf(&self, user: &str, group: &str) -> anyhow::Result<Leaf> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// Writes the authority and a loopback leaf into a folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_server_files(&self, folder: &Path) -> anyhow::Result<ServerFiles> {
        let leaf = self.loopback_leaf()?;
        let files = ServerFiles {
            ca: folder.join("ca.pem"),
            certificate: folder.join("server.pem"),
            key: folder.join("server-key.pem"),
        };
        for (path, content) in [(&files.ca, self.pem()), (&files.certificate, leaf.certificate), (&files.key, leaf.key)]
        {
            fs::write(path, content).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(files)
    }

    fn leaf(&self, names: &[&str]) -> anyhow::Result<Leaf> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or_default());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> anyhow::Result<Leaf> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Chains are built by key identifier: every plane's authority has a name much like the others'.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// An RSA key as PEM: API servers sign ServiceAccount tokens with RS256, and so does the rig's `sign-token`.
///
/// # Errors
/// When the crypto library fails.
pub fn service_account_key() -> anyhow::Result<String> {
    Ok(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?.serialize_pem())
}
