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

# The simulator over many seeds: `just world 10000`.
world seeds="2000":
    SIM_SEEDS={{seeds}} cargo test -p e2e --locked sim_ -- --nocapture

# One seed again: `just replay 0x5eed`.
replay seed:
    SEED={{seed}} cargo test -p e2e --locked sim_replay -- --nocapture
