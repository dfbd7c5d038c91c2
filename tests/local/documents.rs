//! What a site of a fleet is given to read: configuration, secrets, and Site, Peer and ReplicationRule documents.
use crate::shape::Shape;
use crate::site::{ACCESS_KEY, BUCKET, SECRET_KEY, TRUST_DOMAIN};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// Head of every document.
const API: &str = "apiVersion: replication.isthmus.dev/v1alpha1";

/// Everything but peers and rules.
pub fn write_site(dir: &Path, name: &str, drives: usize) {
    write(&dir.join("secret-key"), SECRET_KEY);
    write(&dir.join("site.yaml"), &configuration(drives));
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        let own = dir.join("refs/secrets/own-tls");
        fs::create_dir_all(&own).expect("make a folder");
        fs::copy(dir.join(file), own.join(file)).expect("copy a certificate");
    }
    write(
        &dir.join("rules/site.yaml"),
        &format!(
            "{API}\nkind: Site\nmetadata: {{name: {name}}}\nspec:\n  siteID: {name}\n  trustDomain: {TRUST_DOMAIN}\n  store: {{apiEndpoint: \"https://127.0.0.1:1\", apiTlsSecretRef: {{name: own-tls}}}}\n  listener: {{advertisedEndpoint: \"https://127.0.0.1:1\", tlsSecretRef: {{name: own-tls}}}}\n"
        ),
    );
}

/// The configuration of a process; all ports are free ones.
pub fn configuration(drives: usize) -> String {
    let drives: Vec<String> = (0..drives).map(|d| format!("drives/{d}")).collect();
    format!(
        "store:\n  drives: [{}]\n  s3_listen: \"127.0.0.1:0\"\n  users:\n    - {{access_key: {ACCESS_KEY}, secret_key_file: secret-key}}\n  buckets:\n    - {{name: {BUCKET}, versioning: true}}\nrules_dir: rules\nrefs_dir: refs\njournal: journal.sqlite\npeer_listen: \"127.0.0.1:0\"\nadmin_listen: \"127.0.0.1:0\"\nports_file: ports.json\n",
        drives.join(", ")
    )
}

/// A peer that may send what any site originated.
pub fn write_peer(dir: &Path, name: &str, endpoint: SocketAddr) {
    write(
        &peer_file(dir, name),
        &format!(
            "{API}\nkind: Peer\nmetadata: {{name: {name}}}\nspec:\n  type: Replicator\n  replicator:\n    siteID: {name}\n    endpoint: \"https://{endpoint}\"\n    tls:\n      caRef: {{kind: Secret, name: own-tls}}\n      identities: [\"spiffe://{TRUST_DOMAIN}/site/{name}/replicator\"]\n    inbound:\n      - {{bucket: {BUCKET}, origins: [\"*\"], versionDeletes: Enabled}}\n"
        ),
    );
}

pub fn remove_peer(dir: &Path, name: &str) {
    fs::remove_file(peer_file(dir, name)).expect("remove a document");
}

fn peer_file(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join(format!("rules/peer-{name}.yaml"))
}

/// The rules of the site at `place`, one for each prefix; those it no longer has go.
pub fn write_rules(dir: &Path, place: usize, names: &[&str], shape: &Shape) {
    let mut rules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for way in shape.from(place) {
        rules.entry(way.prefix).or_default().push(names[way.to]);
    }
    let mut kept = BTreeSet::new();
    for (prefix, peers) in rules {
        let (file, name) = match prefix.trim_matches('/') {
            "" => ("rule.yaml".to_owned(), BUCKET.to_owned()),
            word => (format!("rule-{word}.yaml"), format!("{BUCKET}-{word}")),
        };
        write(&dir.join("rules").join(&file), &rule_document(&name, names[place], prefix, &peers, shape.relays));
        kept.insert(file);
    }
    for entry in fs::read_dir(dir.join("rules")).expect("read the folder of documents") {
        let file = entry.expect("read an entry").file_name().into_string().expect("names are of letters");
        if file.starts_with("rule") && !kept.contains(&file) {
            fs::remove_file(dir.join("rules").join(file)).expect("remove a document");
        }
    }
}

fn rule_document(name: &str, site: &str, prefix: &str, peers: &[&str], relays: bool) -> String {
    let destinations: String = peers.iter().map(|p| format!("    - {{peer: {p}}}\n")).collect();
    let filter = if prefix.is_empty() { String::new() } else { format!("  filter: {{prefix: {prefix}}}\n") };
    let forward = if relays { "All" } else { "Own" };
    format!(
        "{API}\nkind: ReplicationRule\nmetadata: {{name: {name}}}\nspec:\n  siteRef: {{name: {site}}}\n  bucket: {BUCKET}\n  mode: ActiveActive\n  forward: {forward}\n{filter}  destinations:\n{destinations}  replicate: {{versionDeletes: Enabled}}\n  recoveryPointObjective: 15m\n"
    )
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("below the directory")).expect("make a folder");
    fs::write(path, text).expect("write a file");
}
