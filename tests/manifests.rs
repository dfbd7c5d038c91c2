//! The manifests without a cluster: every document parses, pods are restricted, probed and bounded, what they mount is named
//! in the README, the Role gives what the controller asks for and no Secret, and every overlay builds where kubectl is there.
use isthmus::document::Node;
use isthmus::rule::judge::judge;
use isthmus::rule::watch_kube::cluster::rights;
use serde_json::Value as Json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &str) -> Vec<PathBuf> {
    let (mut found, mut queue) = (Vec::new(), vec![root().join(dir)]);
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).expect("read a folder") {
            let path = entry.expect("read an entry").path();
            match path.extension() {
                _ if path.is_dir() => queue.push(path),
                Some(e) if e == "yaml" => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no YAML below {dir}");
    found
}

fn parse(text: &str, place: &str) -> Vec<Json> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|e| panic!("{place}: {e}"))
}

/// Documents of the manifests with the file they stand in.
fn documents() -> Vec<(String, Json)> {
    let read = |path: PathBuf| {
        let place = path.strip_prefix(root()).expect("below the root").display().to_string();
        let text = fs::read_to_string(&path).expect("read a manifest");
        parse(&text, &place).into_iter().map(move |document| (place.clone(), document))
    };
    files("manifests").into_iter().flat_map(read).collect()
}

fn of_kind(kinds: &[&str]) -> Vec<(String, Json)> {
    documents().into_iter().filter(|(_, d)| kinds.iter().any(|kind| d["kind"] == *kind)).collect()
}

fn list(json: &Json) -> impl Iterator<Item = &Json> {
    json.as_array().into_iter().flatten()
}

fn texts(json: &Json) -> Vec<&str> {
    list(json).filter_map(Json::as_str).collect()
}

/// Pod templates, with a name for people.
fn pods() -> Vec<(String, Json)> {
    let all: Vec<_> = of_kind(&["StatefulSet", "Deployment"])
        .into_iter()
        .map(|(_, d)| (d["metadata"]["name"].as_str().expect("a name").to_string(), d["spec"]["template"].clone()))
        .collect();
    assert_eq!(all.len(), 2, "a store and a replicator");
    all
}

#[test]
fn pods_are_restricted() {
    for (name, pod) in pods() {
        let spec = &pod["spec"];
        let of_pod = &spec["securityContext"];
        assert_eq!((&of_pod["runAsNonRoot"], &of_pod["runAsUser"]), (&true.into(), &65532.into()), "{name}");
        assert_eq!(of_pod["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(spec.get(field).is_none(), "{name}: {field}");
        }
        assert!(list(&spec["volumes"]).all(|v| v.get("hostPath").is_none()), "{name}: hostPath");
        for container in list(&spec["containers"]) {
            let own = &container["securityContext"];
            assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(own["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(texts(&own["capabilities"]["drop"]), ["ALL"], "{name}");
            assert!(own.get("privileged").is_none(), "{name}");
        }
    }
    let (_, namespace) = of_kind(&["Namespace"]).remove(0);
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn pods_are_probed_and_bounded() {
    for (name, pod) in pods() {
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 60, "{name}: the links drain for 30 s");
        assert!(list(&pod["spec"]["topologySpreadConstraints"]).next().is_some(), "{name}: no spread");
        for container in list(&pod["spec"]["containers"]) {
            for (probe, path) in
                [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
            {
                assert_eq!(container[probe]["httpGet"]["path"], path, "{name} {probe}");
            }
            let resources = &container["resources"];
            for request in ["cpu", "memory"] {
                assert!(resources["requests"][request].is_string(), "{name}: no request of {request}");
            }
            assert!(resources["limits"]["memory"].is_string(), "{name}: no limit of memory");
            assert!(resources["limits"].get("cpu").is_none(), "{name}: a CPU limit throttles what is idle elsewhere");
            assert!(
                list(&container["volumeMounts"]).all(|m| m.get("subPath").is_none()),
                "{name}: subPath hides rotation"
            );
        }
    }
    for account in of_kind(&["ServiceAccount"]) {
        assert_eq!(account.1["automountServiceAccountToken"], false, "{}", account.0);
    }
}

#[test]
fn what_pods_mount_is_named_in_the_readme_or_made_here() {
    let readme = fs::read_to_string(root().join("manifests/README.md")).expect("read the README");
    let generated: Vec<String> = of_kind(&["Kustomization", "Component"])
        .iter()
        .flat_map(|(_, k)| {
            list(&k["configMapGenerator"]).map(|g| g["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
        })
        .collect();
    for (name, pod) in pods() {
        for volume in list(&pod["spec"]["volumes"]) {
            if let Some(secret) = volume["secret"]["secretName"].as_str() {
                assert!(
                    readme.contains(&format!("| `{secret}` |")),
                    "{name}: Secret {secret} is not in manifests/README.md"
                );
            }
            if let Some(map) = volume["configMap"]["name"].as_str() {
                assert!(generated.iter().any(|g| g == map), "{name}: nobody makes ConfigMap {map}");
            }
        }
    }
    assert!(of_kind(&["Secret"]).is_empty(), "no Secret is kept in the tree");
}

#[test]
fn the_network_is_closed_but_for_what_is_named() {
    let policies = of_kind(&["NetworkPolicy"]);
    let deny = policies.iter().find(|(_, p)| p["metadata"]["name"] == "default-deny").expect("a default");
    assert_eq!(deny.1["spec"]["podSelector"], serde_json::json!({}), "every pod");
    assert_eq!(texts(&deny.1["spec"]["policyTypes"]), ["Ingress", "Egress"]);
    assert!(deny.1["spec"].get("ingress").is_none() && deny.1["spec"].get("egress").is_none());
    for (place, policy) in &policies {
        for way in ["ingress", "egress"] {
            for rule in list(&policy["spec"][way]) {
                assert!(list(&rule["ports"]).next().is_some(), "{place}: {way} without ports opens all of them");
            }
        }
    }
    for (name, pod) in pods() {
        let component = &pod["metadata"]["labels"]["app.kubernetes.io/component"];
        let selects = |p: &Json| p["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == *component;
        assert!(policies.iter().any(|(_, p)| selects(p)), "{name}: nothing may reach it");
        let selects = |p: &Json| p["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] == *component;
        let budget = of_kind(&["PodDisruptionBudget"]).into_iter().find(|(_, p)| selects(p)).expect("a budget").1;
        assert_eq!(
            (&budget["spec"]["maxUnavailable"], &budget["spec"]["unhealthyPodEvictionPolicy"]),
            (&1.into(), &"AlwaysAllow".into())
        );
    }
}

#[test]
fn the_role_gives_what_the_controller_asks_for_and_no_secret() {
    let roles = of_kind(&["Role"]);
    let role = &roles.iter().find(|(_, r)| r["metadata"]["name"] == "isthmus-replicator").expect("the Role").1;
    let gives = |right: &isthmus::rule::watch_kube::cluster::Right| {
        list(&role["rules"]).any(|rule| {
            let names = texts(&rule["resourceNames"]);
            texts(&rule["apiGroups"]).contains(&right.group)
                && texts(&rule["resources"]).contains(&right.resource)
                && texts(&rule["verbs"]).contains(&right.verb)
                && (names.is_empty() || right.name.as_deref().is_some_and(|name| names.contains(&name)))
        })
    };
    let missing: Vec<_> = rights("isthmus-controller").into_iter().filter(|r| !gives(r)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    for rule in list(&role["rules"]) {
        let resources = texts(&rule["resources"]);
        assert!(!resources.iter().any(|r| ["secrets", "configmaps", "*"].contains(r)), "{resources:?}");
        assert!(!texts(&rule["verbs"]).contains(&"*"), "{resources:?}");
    }
    assert!(of_kind(&["ClusterRole", "ClusterRoleBinding"]).is_empty(), "nothing reaches beyond the namespace");
}

#[test]
fn documents_and_configurations_in_the_manifests_hold() {
    let mut judged = 0;
    for (place, document) in of_kind(&["Site", "Peer", "ReplicationRule"]) {
        let held = judge(&Node::from_json(&document), place.clone(), None, Some(1));
        held.unwrap_or_else(|findings| panic!("{place}: {findings:?}"));
        judged += 1;
    }
    assert_eq!(judged, 3 + 6 + 1, "three Sites, two Peers each, a sample rule");
    for path in files("manifests").into_iter().filter(|p| p.parent().is_some_and(|d| d.ends_with("config"))) {
        let problems = match path.file_stem().and_then(|s| s.to_str()) {
            Some("store") => isthmus::config::store(&path).err(),
            Some("replicator") => isthmus::config::replicator(Some(&path), None).err(),
            other => panic!("{other:?} is no role"),
        };
        // What a pod mounts is not here; everything else must hold.
        let wrong = |p: &&isthmus::config::Problem| {
            !p.message.contains("put it there") && !p.message.contains("there is no file")
        };
        let wrong: Vec<_> = problems.iter().flatten().filter(wrong).map(ToString::to_string).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn s3_is_spoken_over_tls_under_the_name_of_its_service() {
    let (_, pod) = pods().into_iter().find(|(name, _)| name == "isthmus-store").expect("a store");
    let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
    for site in ["a", "b", "c"] {
        let path = format!("manifests/overlays/site-{site}/config/store.yaml");
        let text = fs::read_to_string(root().join(&path)).expect("read a configuration");
        let folder = &parse(&text, &path)[0]["store"]["s3_tls_dir"];
        let mount = list(mounts).find(|m| m["mountPath"] == *folder).unwrap_or_else(|| panic!("{path}: {folder}"));
        let volume = list(&pod["spec"]["volumes"]).find(|v| v["name"] == mount["name"]).expect("a volume");
        let secret = &volume["secret"]["secretName"];
        let issued = of_kind(&["Certificate"]).into_iter().find(|(_, c)| c["spec"]["secretName"] == *secret);
        let issued = issued.unwrap_or_else(|| panic!("{path}: cert-manager issues no {secret}")).1;
        let serves = |s: &Json| list(&s["spec"]["ports"]).any(|p| p["targetPort"] == "s3");
        let (_, service) = of_kind(&["Service"]).into_iter().find(|(_, s)| serves(s)).expect("a Service for S3");
        let name = format!("{}.isthmus.svc", service["metadata"]["name"].as_str().expect("a name"));
        assert!(texts(&issued["spec"]["dnsNames"]).contains(&name.as_str()), "{name} is not in {issued}");
        assert!(issued["spec"].get("uris").is_none(), "it must prove nobody to peers");
    }
}

#[test]
fn clusters_of_kind_have_subnets_and_ports_of_their_own() {
    let mut taken = Vec::new();
    for path in files("kind-configs") {
        let text = fs::read_to_string(&path).expect("read a configuration");
        let cluster = parse(&text, &path.display().to_string()).remove(0);
        taken.extend(["podSubnet", "serviceSubnet"].map(|key| cluster["networking"][key].to_string()));
        for mapping in list(&cluster["nodes"]).flat_map(|n| list(&n["extraPortMappings"])) {
            assert_eq!(mapping["listenAddress"], "127.0.0.1");
            taken.push(mapping["hostPort"].to_string());
        }
    }
    let all = taken.len();
    taken.sort();
    taken.dedup();
    assert_eq!((all, taken.len()), (12, 12), "{taken:?}");
}

#[test]
fn every_overlay_builds() {
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        println!("SKIPPED: kubectl is not installed; the overlays are not built");
        return;
    }
    let build = |dir: &Path| {
        let built = Command::new("kubectl").arg("kustomize").arg(dir).output().expect("run kubectl");
        assert!(built.status.success(), "{}: {}", dir.display(), String::from_utf8_lossy(&built.stderr));
        parse(&String::from_utf8_lossy(&built.stdout), &dir.display().to_string())
    };
    for site in ["a", "b", "c"] {
        let built = build(&root().join(format!("manifests/overlays/site-{site}")));
        let of = |kind: &str| built.iter().filter(|d| d["kind"] == kind).count();
        assert_eq!((of("StatefulSet"), of("Site"), of("Peer"), of("ConfigMap")), (2, 1, 2, 2), "site {site}");
    }
    // With every component: two replicators that share a database, and none on a volume.
    let whole = tempfile::tempdir().expect("make a directory");
    let copied = Command::new("cp").arg("-r").arg(root().join("manifests")).arg(whole.path()).status();
    assert!(copied.expect("run cp").success());
    let overlay = whole.path().join("manifests/overlays/whole");
    fs::create_dir(&overlay).expect("make the overlay");
    let text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../site-a]\n\
        components: [../../components/ha, ../../components/cert-manager, ../../components/monitoring, ../../components/samples]\n";
    fs::write(overlay.join("kustomization.yaml"), text).expect("write the overlay");
    let built = build(&overlay);
    let boards =
        built.iter().filter(|d| d["kind"] == "ConfigMap" && d["metadata"]["labels"]["grafana_dashboard"] == "1");
    let boards: Vec<_> = boards.map(|d| d["metadata"]["name"].as_str().expect("a name")).collect();
    assert_eq!(boards.len(), isthmus::dashboard::boards().len(), "{boards:?}");
    let replicator = built.iter().find(|d| d["metadata"]["name"] == "isthmus-replicator" && d["kind"] == "Deployment");
    let spec = &replicator.expect("a Deployment")["spec"];
    assert_eq!((&spec["replicas"], spec.get("volumeClaimTemplates")), (&2.into(), None));
    let volumes: Vec<_> = list(&spec["template"]["spec"]["volumes"]).map(|v| v["name"].clone()).collect();
    for mount in list(&spec["template"]["spec"]["containers"][0]["volumeMounts"]) {
        assert!(volumes.contains(&mount["name"]), "{mount} has no volume");
        assert_ne!(mount["mountPath"], "/var/lib/isthmus", "the journal's file is gone");
    }
}
