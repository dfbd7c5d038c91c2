//! A site whose store and two replicators are processes of their own; the replicators share one PostgreSQL.
use super::pg;
use super::process::free_ports;
use super::sites::{BUCKET, Site, get};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);

/// The processes of one site; killed with their owner.
pub struct Split {
    dir: PathBuf,
    store_admin: u16,
    /// Name, port of the admin listener, and the process while it runs.
    replicators: Vec<(&'static str, u16, Option<Child>)>,
    store: Option<Child>,
}

impl Split {
    /// Writes the configurations of all, over what `site` was provisioned with.
    pub fn prepare(site: &mut Site, server: &pg::Server) -> Split {
        let [api, store_admin, other_peer, other_admin] = free_ports();
        site.api = api;
        let dir = site.dir.clone();
        let certs = site.certs[0].join(site.name).join("store");
        let (s3, name) = (site.s3, site.name);
        fs::write(dir.join("store.yaml"), format!(
            "origin: {name}\nstore:\n  drives: [d0, d1, d2, d3]\n  s3_listen: \"127.0.0.1:{s3}\"\n  users: [{{access_key: demo, secret_key_file: secret-key}}]\n  buckets: [{{name: {BUCKET}, versioning: true}}]\napi:\n  listen: \"127.0.0.1:{api}\"\n  tls_dir: {}\n  clients: [\"spiffe://kube.example/site/{name}/replicator\"]\nadmin_listen: \"127.0.0.1:{store_admin}\"\n",
            certs.display()
        )).expect("write the configuration");
        let mut replicators = Vec::new();
        for (replicator, peer, admin) in [("one", site.peer, site.admin), ("two", other_peer, other_admin)] {
            let own = dir.join(replicator);
            fs::create_dir_all(&own).expect("make a directory");
            fs::write(own.join("replicator.yaml"), format!(
                "kubernetes: {{kubeconfig: ../kubeconfig}}\njournal: {{postgres: {{url_file: {}, tls: \"off\"}}}}\npeer_listen: \"127.0.0.1:{peer}\"\nadmin_listen: \"127.0.0.1:{admin}\"\n",
                server.url_file().display()
            )).expect("write the configuration");
            replicators.push((replicator, admin, None));
        }
        Split { dir, store_admin, replicators, store: None }
    }

    /// Starts the store and waits for it.
    pub async fn start_store(&mut self) {
        self.store = Some(self.spawn("store", "store.yaml", "store"));
        self.until_ready(self.store_admin, "store").await;
    }

    /// Starts both replicators and waits for them.
    pub async fn start_replicators(&mut self) {
        for at in 0..self.replicators.len() {
            let (name, ..) = self.replicators[at];
            let child = self.spawn("replicator", &format!("{name}/replicator.yaml"), name);
            self.replicators[at].2 = Some(child);
        }
        for (name, admin, _) in &self.replicators {
            self.until_ready(*admin, name).await;
        }
    }

    /// kill -9 of the replicator of this name.
    pub fn kill(&mut self, name: &str) {
        let (.., running) = self.replicators.iter_mut().find(|(n, ..)| *n == name).expect("one of both");
        let mut child = running.take().expect("it runs");
        child.kill().expect("kill -9");
        child.wait().expect("wait for the killed");
    }

    /// Waits until every replicator that runs pushes some link.
    pub async fn until_shared(&self) {
        for (name, admin, _) in self.replicators.iter().filter(|(.., running)| running.is_some()) {
            let pushes = || {
                let owned = |line: &&str| line.starts_with("isthmus_link_owned{") && line.ends_with(" 1");
                get(*admin, "/metrics").is_some_and(|(_, text)| text.lines().filter(owned).count() > 0)
            };
            self.until(&format!("{name} pushes a link"), name, pushes).await;
        }
    }

    fn spawn(&self, role: &str, config: &str, name: &str) -> Child {
        let log = fs::File::create(self.dir.join(format!("{name}.log"))).expect("make the log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
        command.args([role, "--config"]).arg(self.dir.join(config)).env("HOSTNAME", name);
        command.stdin(Stdio::null()).stderr(log).spawn().expect("start a role")
    }

    async fn until_ready(&self, admin: u16, name: &str) {
        self.until("it is ready", name, || get(admin, "/readyz").is_some_and(|(code, _)| code == 200)).await;
    }

    async fn until(&self, what: &str, name: &str, fact: impl Fn() -> bool) {
        let by = Instant::now() + PATIENCE;
        while !fact() {
            let log = || fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
            assert!(Instant::now() < by, "{name}: not in time: {what}\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        for child in self.replicators.iter_mut().filter_map(|(.., running)| running.as_mut()).chain(&mut self.store) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
