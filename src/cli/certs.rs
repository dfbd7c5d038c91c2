//! `isthmus certs`: a CA and three certificates per site: its replicator's, its store's, its S3 listener's. For the demo, for
//! tests and for trying out; never for a real fleet: there they come from whoever runs its CA.
//!
//! Called by `main`, `cli/demo.rs` and the tests of `peer`.
use super::exit;
use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What to make.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder to write to.
    dir: PathBuf,
    /// SPIFFE trust domain, as in the Site documents.
    #[arg(long)]
    trust_domain: String,
    /// A site and the DNS names and IP addresses it is reached by: `fra=127.0.0.1,localhost`.
    #[arg(long = "site", value_name = "ID=HOST,...", required = true)]
    sites: Vec<String>,
}

/// Makes them; returns the exit code.
pub fn run(args: &Args) -> u8 {
    let mut sites: Vec<(&str, Vec<&str>)> = Vec::new();
    for site in &args.sites {
        match site.split_once('=') {
            Some((id, hosts)) if !id.is_empty() && !id.contains('/') => sites.push((id, hosts.split(',').collect())),
            _ => {
                eprintln!("isthmus certs: --site {site}: write ID=HOST,HOST such as fra=127.0.0.1,localhost");
                return exit::USAGE;
            }
        }
    }
    let sites: Vec<(&str, &[&str])> = sites.iter().map(|(id, hosts)| (*id, hosts.as_slice())).collect();
    match make(&args.dir, &args.trust_domain, &sites) {
        Ok(()) => exit::OK,
        Err(e) => {
            eprintln!("isthmus certs: {e:#}");
            exit::INTERNAL
        }
    }
}

/// Writes `ca.crt`, and for every site `<site>/{tls.crt,tls.key,ca.crt}` for its replicator and the same
/// below `<site>/store` for its store and `<site>/s3` for its S3 listener, below `dir`.
///
/// `sites` names each site id with the DNS names and IP addresses its listeners are reached by. Keys are
/// ECDSA P-256; each certificate serves both ends of a connection and carries exactly one URI,
/// `spiffe://<trust domain>/site/<id>/replicator`, or `.../store`; the S3 listener's has none and proves nobody to peers. The CA's key is written nowhere, so nothing can be
/// added later. Key files are readable by their owner only.
///
/// # Errors
/// A name that cannot stand in a certificate, or a file that cannot be written.
pub fn make(dir: &Path, trust_domain: &str, sites: &[(&str, &[&str])]) -> anyhow::Result<()> {
    let ca = authority(&format!("isthmus {trust_domain}"))?;
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    write(&dir.join("ca.crt"), &ca.pem(), 0o644)?;
    for (site, hosts) in sites {
        let holders = [
            (dir.join(site), Some(spiffe_id(trust_domain, site))),
            (dir.join(site).join("store"), Some(store_id(trust_domain, site))),
            (dir.join(site).join("s3"), None),
        ];
        for (dir, id) in holders {
            let (certificate, key) = issue(&ca, site, hosts, id.as_deref().as_slice())?;
            std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
            write(&dir.join("ca.crt"), &ca.pem(), 0o644)?;
            write(&dir.join("tls.crt"), &certificate, 0o644)?;
            write(&dir.join("tls.key"), &key, 0o600)?;
        }
    }
    Ok(())
}

/// The one name of a site's replicator in a trust domain.
pub fn spiffe_id(trust_domain: &str, site: &str) -> String {
    format!("spiffe://{trust_domain}/site/{site}/replicator")
}

/// The one name of a site's store.
pub fn store_id(trust_domain: &str, site: &str) -> String {
    format!("spiffe://{trust_domain}/site/{site}/store")
}

/// A CA and its key.
pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

/// A CA with a new key, which lives as long as the value.
pub(crate) fn authority(name: &str) -> anyhow::Result<Authority> {
    let mut params = CertificateParams::new(Vec::new()).context("name the CA")?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    fix_validity(&mut params);
    CertifiedIssuer::self_signed(params, new_key()?).context("sign the CA")
}

/// A certificate and its key, both PEM, with `hosts` and `uris` as alternative names.
pub(crate) fn issue(ca: &Authority, name: &str, hosts: &[&str], uris: &[&str]) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::new(Vec::new()).context("name the site")?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Strict clients, such as Python from 3.13 on, want to be told which key signed.
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for host in hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName((*host).try_into().with_context(|| format!("take {host} as a DNS name"))?),
        });
    }
    for uri in uris {
        params.subject_alt_names.push(SanType::URI((*uri).try_into().with_context(|| format!("take {uri} as a URI"))?));
    }
    fix_validity(&mut params);
    let key = new_key()?;
    let certificate = params.signed_by(&key, ca).context("sign a site's certificate")?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn new_key() -> anyhow::Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a key")
}

/// Fixed dates, so that making certificates asks no clock.
fn fix_validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2124, 1, 1);
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut f| f.write_all(text.as_bytes())).with_context(|| format!("write {}", path.display()))
}
