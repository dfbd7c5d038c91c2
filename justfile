# Daily commands; `just` lists them.
default:
    @just --list

# Three sites on this machine: write, kill one, catch up, compare.
demo *ARGS:
    cargo run --locked -- demo {{ARGS}}

# Every test.
test:
    cargo test --workspace --locked

# The figures on this machine: `just bench --only put4k`, `just bench --dir /mnt/disk -o json`.
bench *ARGS:
    cargo bench --locked --bench figures -- {{ARGS}}

# What CI runs.
ci:
    bash .ci/run

# The simulator over many seeds of one simulated hour each, and what went wrong in them: `just world 10000`.
world seeds="2000":
    SIM_SEEDS={{seeds}} cargo test -p e2e --locked --test sim_links sim_ -- --nocapture

# One seed again: `just replay 0x5eed`.
replay seed:
    SEED={{seed}} cargo test -p e2e --locked sim_replay -- --nocapture

# The real shell, frames and TLS of two or three sites under a simulated network: `just wire 500`.
wire seeds="100":
    WIRE_SEEDS={{seeds}} cargo test --workspace --locked --test wire wire_ -- --nocapture

# One seed of it again, by the line that a failure printed: `just wire-again 0x31e0003 wire_replay`.
wire-again seed test:
    SEED={{seed}} cargo test --workspace --locked --test wire {{test}} -- --exact --nocapture

# Real processes under kill -9, pauses and a bad network: `just kill 1000`.
kill kills="200":
    KILLS={{kills}} cargo test --locked --test local kill -- --nocapture --test-threads 1

# A run of kills again, by the seed that a failure printed.
kill-again seed test:
    SEED={{seed}} cargo test --locked --test local {{test}} -- --nocapture

# Code of one module (link, journal, version) changed at random; its unit tests must notice (cargo install --locked cargo-mutants).
# Minutes for each change: `just mutants link --shard 0/50` does a fiftieth; what is changed stands in .cargo/mutants.toml.
mutants module *ARGS:
    PROPTEST_DISABLE_FAILURE_PERSISTENCE=1 cargo mutants -p {{ if module == "version" { "storage-engine" } else { "isthmus" } }} -F 'src/{{module}}' {{ARGS}} -- --lib {{module}}::

# Bugs planted on purpose; the simulator and the wire ring must find each.
planted-bugs:
    cargo test --workspace --locked --test sim_planted --test wire_planted -- --nocapture

# Three kind clusters with a site each, and the scenarios against them; `just clusters down` takes them away.
clusters *ARGS:
    bash e2e/clusters/kind.sh {{ARGS}}
