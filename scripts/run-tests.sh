#!/usr/bin/env bash
# What `make test` runs: the servers that tests need, a build, `cargo test`, and a count of what was skipped.
# A test that lacks a server fails in CI (environment variable CI set); elsewhere it is skipped loudly and counted here.
set -euo pipefail
cd "$(dirname "$0")/.."

# What tests look for in .tools/; a test that needs another has its name added here.
readonly TOOLS=(nats-server docker-registry redis valkey libfaketime wash host-0.18 cassandra consul)
readonly SKIPPED=target/skipped-tests.txt
readonly COULD_NOT_INSTALL=3

tools=0
scripts/install-tools.sh "${TOOLS[@]}" || tools=$?
if [ "$tools" != 0 ] && { [ -n "${CI:-}" ] || [ "$tools" != "$COULD_NOT_INSTALL" ]; }; then
  echo "run-tests: stopping, see install-tools above" >&2
  exit "$tools"
fi

mkdir -p target
rm -f "$SKIPPED"
cargo build --locked --workspace
outcome=0
# One that fails does not hide the others.
cargo test --locked --manifest-path hosts/plugin-0-18/Cargo.toml --target-dir target/plugin-0.18 || outcome=$?
cargo test --locked --workspace --no-fail-fast "$@" || outcome=$?

if [ -s "$SKIPPED" ]; then
  echo
  echo "SKIPPED $(wc -l <"$SKIPPED") tests:"
  sed 's/^/  /' "$SKIPPED"
  echo "Install what they need with: scripts/install-tools.sh ${TOOLS[*]}"
  if [ -n "${CI:-}" ] && [ "$outcome" = 0 ]; then
    echo "run-tests: in CI no test may be skipped" >&2
    outcome=1
  fi
fi
[ "$outcome" = 0 ] && echo "make test: passed" || echo "make test: FAILED"
exit "$outcome"
