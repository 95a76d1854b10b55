//! A certificate authority for one test, and a server certificate from it.

use std::fmt;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::{folder::Folder, port::Port};

/// A certificate and key for a server at `127.0.0.1` and `localhost`, and the authority's certificate for its clients.
#[derive(Clone)]
pub struct Tls {
    authority: (String, Vec<u8>),
    certificate: String,
    key: String,
}

impl Tls {
    pub fn generate() -> Self {
        let issuer = authority();
        let names = ["127.0.0.1", "localhost"].map(str::to_owned);
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("valid names");
        // Unlike the authority's name: with equal names, other servers would take this certificate for a self-signed one.
        params.distinguished_name.push(DnType::CommonName, "a server");
        let certificate = params.signed_by(&key, &issuer.signer).expect("a certificate");
        Self {
            authority: (issuer.certificate.pem(), issuer.certificate.der().to_vec()),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// The authority's certificate as PEM. A client must trust it.
    pub fn ca_pem(&self) -> &str {
        &self.authority.0
    }

    /// The authority's certificate as DER.
    pub fn ca_der(&self) -> &[u8] {
        &self.authority.1
    }

    /// Writes the files for a server, and returns the lines of its configuration that name them.
    pub(super) fn lines(&self, folder: &Folder, port: &Port) -> String {
        let files = [
            ("tls-ca-cert-file", "ca.pem", &self.authority.0),
            ("tls-cert-file", "server.pem", &self.certificate),
            ("tls-key-file", "server.key", &self.key),
        ];
        let lines = files.map(|(option, name, content)| {
            let path = folder.write(name, content);
            format!("{option} \"{}\"\n", path.display())
        });
        format!("tls-port {}\ntls-auth-clients no\n{}", port.number(), lines.concat())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

struct Authority {
    certificate: rcgen::Certificate,
    signer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    Authority { certificate, signer: Issuer::new(params, key) }
}
