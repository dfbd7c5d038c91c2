//! Revocation lists: whoever was revoked is neither let in nor spoken to, and a list that is named must be there.
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use storage_engine::identity::{Bundle, Error, Files, Identity};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// 2026-11-22, Unix milliseconds.
const NOW: u64 = 1_795_305_600_000;

struct Authority {
    folder: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        Authority::until(2030)
    }

    /// One that holds until the end of the year before `until`.
    fn until(until: i32) -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(until, 1, 1));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.crt"), ca.pem()).unwrap();
        Authority { folder, ca }
    }

    /// Files of a holder with this serial number, which believes the CA as `bundle` says.
    fn issue(&self, serial: u64, bundle: Bundle) -> Files {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://t/site/a/replicator".try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let path = |end: &str| self.folder.path().join(format!("{serial}.{end}"));
        std::fs::write(path("crt"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        Files { certificate: path("crt"), key: path("key"), authorities: vec![bundle] }
    }

    /// Writes the list of what was revoked, to be renewed in `until`.
    fn revoke(&self, serials: &[u64], until: i32) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(self.folder.path().join("ca.crl"), list.signed_by(&self.ca).unwrap().pem().unwrap()).unwrap();
    }

    fn plain(&self) -> Bundle {
        self.folder.path().join("ca.crt").into()
    }

    fn with_list(&self) -> Bundle {
        Bundle { revocations: Some(self.folder.path().join("ca.crl")), ..self.plain() }
    }
}

fn chain(files: &Files) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_file(&files.certificate).unwrap()]
}

#[tokio::test]
async fn a_caller_is_let_in_only_while_a_list_says_that_it_is_not_revoked() {
    let authority = Authority::new();
    let listener = Identity::load(authority.issue(1, authority.plain())).await.unwrap();
    let (good, bad) = (chain(&authority.issue(2, authority.plain())), chain(&authority.issue(3, authority.plain())));
    let bundle = authority.with_list();
    let vouch = |chain: &[CertificateDer<'static>]| {
        listener.configs().vouch(&bundle, chain, NOW).map_err(|err| err.to_string())
    };
    assert!(!listener.trust(vec![bundle.clone()]).await.unwrap(), "there is no list yet");
    assert!(vouch(&good).unwrap_err().contains("was not read"), "a list that is named and not there lets nobody in");
    assert!(listener.configs().vouch(&authority.plain(), &good, NOW).is_ok(), "where none is named none is asked");

    authority.revoke(&[], 2100);
    assert!(listener.reload().await.unwrap());
    assert_eq!((vouch(&good), vouch(&bad)), (Ok(()), Ok(())));
    authority.revoke(&[3], 2100);
    assert!(listener.reload().await.unwrap());
    assert_eq!(vouch(&good), Ok(()));
    assert!(vouch(&bad).unwrap_err().contains("Revoked"), "{:?}", vouch(&bad));
    std::fs::write(bundle.revocations.as_ref().unwrap(), "damaged").unwrap();
    assert!(!listener.reload().await.unwrap(), "what was read before holds");
    assert!(vouch(&bad).is_err() && vouch(&good).is_ok());
    authority.revoke(&[], 2026);
    assert!(listener.reload().await.unwrap());
    assert!(vouch(&good).is_err(), "a list that is out of date lets nobody in");
}

#[tokio::test]
async fn a_listener_that_was_revoked_is_not_spoken_to() {
    let authority = Authority::new();
    let missing = Identity::load(authority.issue(1, authority.with_list())).await;
    assert!(matches!(missing, Err(Error::Read { path, .. }) if path.ends_with("ca.crl")), "it is named");
    authority.revoke(&[3], 2100);
    let caller = Identity::load(authority.issue(1, authority.with_list())).await.unwrap();
    for (serial, is_believed) in [(2, true), (3, false)] {
        let listener = Identity::load(authority.issue(serial, authority.plain())).await.unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let accepting = TlsAcceptor::from(listener.configs().server).accept(far);
        let connector = TlsConnector::from(caller.configs().client);
        let dialled = connector.connect("localhost".try_into().unwrap(), near);
        let (_, dialled) = tokio::join!(accepting, dialled);
        assert_eq!(dialled.is_ok(), is_believed, "{serial}: {:?}", dialled.err());
    }
}

#[tokio::test]
async fn the_bundle_that_ends_first_is_told_and_of_a_bundle_the_ca_that_ends_last() {
    let millis = |year: i32| u64::try_from(date_time_ymd(year, 1, 1).unix_timestamp()).unwrap() * 1000;
    let (own, peers, next) = (Authority::until(2029), Authority::until(2027), Authority::until(2031));
    let identity = Identity::load(own.issue(1, own.plain())).await.unwrap();
    let ends = |identity: &Identity| identity.authorities_valid_millis().unwrap();
    assert_eq!(ends(&identity), (millis(2025), millis(2029)));
    identity.trust(vec![peers.plain()]).await.unwrap();
    assert_eq!(ends(&identity).1, millis(2027), "a peer's CA ends before");
    let both = peers.ca.pem() + &next.ca.pem();
    std::fs::write(peers.folder.path().join("ca.crt"), both).unwrap();
    identity.reload().await.unwrap();
    assert_eq!(ends(&identity).1, millis(2029), "its successor stands beside it");
}
