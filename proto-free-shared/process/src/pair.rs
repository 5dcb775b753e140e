//! Whether a certificate and a private key go together, and both in one spelling. Pure.
//!
//! Both sides ask: the agent so that nothing else leaves the virtual cluster, host-api since an agent may be a tenant's own.
//! What comes out is written anew from what was parsed: no text around the blocks of a PEM file crosses, and no other block.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3k_expose_proto::limits::{TLS_CERTIFICATE, TLS_KEY};
use k3k_expose_proto::secret::{Pair, PrivateKey, Unfit};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Letters in a line of PEM.
const WIDTH: usize = 64;

/// Reads `tls.crt` and `tls.key`.
///
/// # Errors
/// [`Unfit`]. Cheap checks come first: reading an RSA key takes milliseconds.
pub fn check(certificate: &[u8], key: &[u8]) -> Result<Pair, Unfit> {
    if certificate.len() > TLS_CERTIFICATE || key.len() > TLS_KEY {
        return Err(Unfit::Large);
    }
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|_| Unfit::Unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Unfit::Unreadable)?;
    if chain.is_empty() {
        return Err(Unfit::Unreadable);
    }
    let signing = aws_lc_rs::sign::any_supported_type(&key).map_err(|_| Unfit::Unreadable)?;
    match CertifiedKey::new(chain.clone(), signing).keys_match() {
        Ok(()) => {}
        Err(rustls::Error::InconsistentKeys(_)) => return Err(Unfit::Mismatch),
        Err(_) => return Err(Unfit::Unreadable),
    }
    let label = match &key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    let certificate: String = chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect();
    let key = PrivateKey::new(pem(label, key.secret_der()));
    if certificate.len() > TLS_CERTIFICATE || key.expose().len() > TLS_KEY {
        return Err(Unfit::Large);
    }
    Ok(Pair { certificate, key })
}

fn pem(label: &str, der: &[u8]) -> String {
    let letters = STANDARD.encode(der);
    let mut pem = String::with_capacity(letters.len() + letters.len() / WIDTH + 2 * label.len() + 40);
    let _ = writeln!(pem, "-----BEGIN {label}-----");
    let mut rest = letters.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(WIDTH));
        let _ = writeln!(pem, "{line}");
        rest = after;
    }
    let _ = writeln!(pem, "-----END {label}-----");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};

    fn made(key: &KeyPair) -> (String, String) {
        let params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
        (params.self_signed(key).unwrap().pem(), key.serialize_pem())
    }

    fn of(certificate: &str, key: &str) -> Result<Pair, Unfit> {
        check(certificate.as_bytes(), key.as_bytes())
    }

    #[test]
    fn pairs_of_every_common_kind_go_together_and_come_out_in_one_spelling() {
        for key in [
            KeyPair::generate().unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
        ] {
            let (certificate, key) = made(&key);
            let pair = of(&certificate, &key).unwrap();
            let again = of(&pair.certificate, pair.key.expose()).unwrap();
            assert_eq!(again, pair);
            let noisy = |pem: &str| format!("# made by somebody\r\n{}\nbye", pem.replace('\n', "\r\n"));
            assert_eq!(of(&noisy(&certificate), &noisy(&key)).unwrap(), pair, "nothing around it crosses");
        }
    }

    #[test]
    fn a_chain_stays_in_its_order() {
        let (leaf, key) = made(&KeyPair::generate().unwrap());
        let (other, _) = made(&KeyPair::generate().unwrap());
        let pair = of(&format!("{leaf}{other}"), &key).unwrap();
        assert_eq!(pair.certificate.matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(of(&format!("{other}{leaf}"), &key), Err(Unfit::Mismatch), "the first one counts");
    }

    #[test]
    fn what_does_not_go_together_or_cannot_be_read_is_refused() {
        let (certificate, key) = made(&KeyPair::generate().unwrap());
        let (_, another) = made(&KeyPair::generate().unwrap());
        let cut = &key[..key.len() / 2];
        let broken = certificate.replace('M', "N");
        for (certificate, key, expected) in [
            (certificate.as_str(), another.as_str(), Unfit::Mismatch),
            ("", &key, Unfit::Unreadable),
            (&certificate, "", Unfit::Unreadable),
            (&certificate, cut, Unfit::Unreadable),
            (&broken, &key, Unfit::Unreadable),
            (&key, &certificate, Unfit::Unreadable),
            (&"x".repeat(TLS_CERTIFICATE + 1), &key, Unfit::Large),
            (&certificate, &"x".repeat(TLS_KEY + 1), Unfit::Large),
        ] {
            assert_eq!(of(certificate, key), Err(expected));
        }
    }
}
