# Recipes for development: https://just.systems. A change must pass `.ci/run`.

# List the recipes.
default:
    @just --list

# Format, lints and docs.
check:
    cargo fmt --all --check
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

# The fast tier: unit tests, and the integration tests that start no server except headcount.
test:
    cargo test --locked --lib
    cargo test --locked --test it -- docs:: formats::files formats::names http:: auth:: cli:: load:: client_errors:: openapi:: metrics:: events:: --skip influx_cli --skip overload --skip schemathesis --skip the_viewer

# All tests. Tests whose server is not installed are skipped with a line on standard error.
test-all:
    cargo test --locked

# One bench or all, for example: just bench --bench index
bench *args:
    cargo bench --locked {{args}}

# Fuzz a target, for example: just fuzz stores influx::fuzz::answers 60; without arguments it lists the targets.
fuzz *args:
    tests/fuzz {{args}}
