#!/usr/bin/env bash
# Three kind clusters with a site each: makes them, builds and loads the image, installs everything, and runs the scenarios
# of tests/kube against their API servers. Needs docker, kind and kubectl. `kind.sh down` takes the clusters away.
set -euo pipefail
cd "$(dirname "$0")/../.."
sites=(a b c)
work=${TMPDIR:-/tmp}/isthmus-kind
for tool in docker kind kubectl; do
  command -v "$tool" >/dev/null || { echo "SKIPPED: $tool is not installed; kind.sh needs docker, kind and kubectl"; exit 0; }
done
if [ "${1:-up}" = down ]; then
  for site in "${sites[@]}"; do kind delete cluster --name "isthmus-$site"; done
  exit 0
fi

mkdir -p "$work"
docker build -t isthmus:dev .
cargo build --locked
target/debug/isthmus certs "$work/certs" --trust-domain isthmus.example.org \
  --site a=replication.a.example.org,isthmus-store.isthmus.svc,isthmus-s3.isthmus.svc \
  --site b=replication.b.example.org,isthmus-store.isthmus.svc,isthmus-s3.isthmus.svc \
  --site c=replication.c.example.org,isthmus-store.isthmus.svc,isthmus-s3.isthmus.svc

for site in "${sites[@]}"; do
  name=isthmus-$site
  kind get clusters | grep -qx "$name" || kind create cluster --config "kind-configs/site-$site.yaml" --kubeconfig "$work/$site"
  kind load docker-image isthmus:dev --name "$name"
done

# What peers dial is a NodePort of the other cluster's node; every cluster learns the names.
hosts=$(for site in "${sites[@]}"; do
  address=$(docker inspect -f '{{.NetworkSettings.Networks.kind.IPAddress}}' "isthmus-$site-control-plane")
  printf '        %s replication.%s.example.org\n' "$address" "$site"
done)
for site in "${sites[@]}"; do
  kube=(kubectl --kubeconfig "$work/$site")
  "${kube[@]}" apply --server-side -f crds/
  "${kube[@]}" wait --for=condition=Established --timeout=60s -f crds/
  "${kube[@]}" create namespace isthmus --dry-run=client -o yaml | "${kube[@]}" apply -f -
  secret() { "${kube[@]}" -n isthmus create secret generic "$@" --dry-run=client -o yaml | "${kube[@]}" apply -f -; }
  certs=$work/certs/$site
  secret isthmus-tls --from-file="$certs/tls.crt" --from-file="$certs/tls.key" --from-file="$certs/ca.crt"
  secret isthmus-store-tls --from-file="$certs/store/tls.crt" --from-file="$certs/store/tls.key" --from-file="$certs/store/ca.crt"
  secret isthmus-s3-tls --from-file="$certs/s3/tls.crt" --from-file="$certs/s3/tls.key"
  secret peer-ca --from-file="$certs/ca.crt"
  secret isthmus-users --from-literal=app=a-secret-key
  "${kube[@]}" -n kube-system get configmap coredns -o yaml |
    awk -v hosts="$hosts" '/forward \. /&&!done{print "        hosts {"; print hosts; print "        fallthrough\n        }"; done=1} {print}' |
    "${kube[@]}" apply -f -
  "${kube[@]}" apply --server-side -k "manifests/overlays/site-$site"
  "${kube[@]}" -n isthmus patch service isthmus-peers --type merge \
    -p '{"spec":{"type":"NodePort","ports":[{"name":"peers","port":8443,"targetPort":"peers","nodePort":30443}]}}'
done
for site in "${sites[@]}"; do
  kubectl --kubeconfig "$work/$site" -n isthmus rollout status --timeout=300s statefulset/isthmus-store statefulset/isthmus-replicator
done

ISTHMUS_E2E_KUBECONFIGS="$work/a:$work/b:$work/c" ISTHMUS_E2E_REQUIRE=1 cargo test --locked --test crds --test kube -- --nocapture
