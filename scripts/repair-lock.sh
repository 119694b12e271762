#!/usr/bin/env bash
# nuid 0.3.2 and 0.4.1 (through wascap and async-nats 0.31 of the wasmbus generation) ask for "rand >=0.8", get
# rand 0.10 from the resolver and then do not compile. Cargo accepts a lock in which they point at rand 0.8, and
# keeps it. After `cargo update` run this once:
#   scripts/repair-lock.sh           repairs Cargo.lock
#   scripts/repair-lock.sh --check   only looks; exit code 1 and a clear text when the lock has slipped
set -euo pipefail
cd "$(dirname "$0")/.."
rand=$(awk '$0 == "name = \"rand\"" { getline; gsub(/[^0-9.]/, "", $3); if ($3 ~ /^0\.8\./) print $3 }' Cargo.lock)
[ -n "$rand" ] || { echo "repair-lock: Cargo.lock holds no rand 0.8 to point nuid at" >&2; exit 1; }
fixed=$(mktemp)
trap 'rm -f "$fixed"' EXIT
awk -v wanted="$rand" '
  /^\[\[package\]\]/ { nuid = 0 }
  $0 == "name = \"nuid\"" { nuid = 1 }
  nuid && /^version = "0\.[5-9]/ { nuid = 0 }
  nuid && /^ "rand 0\.(9|10)\./ { sub(/rand [0-9.]+/, "rand " wanted) }
  { print }' Cargo.lock >"$fixed"
if cmp -s "$fixed" Cargo.lock; then
  exit 0
elif [ "${1:-}" = --check ]; then
  echo "repair-lock: Cargo.lock lets nuid use a rand it does not compile with; run scripts/repair-lock.sh and commit Cargo.lock" >&2
  exit 1
fi
cp "$fixed" Cargo.lock
echo "repair-lock: nuid points at rand $rand again"
