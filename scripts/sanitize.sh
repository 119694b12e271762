#!/usr/bin/env bash
# Runs the tests of the code with `unsafe` (crates/core/src/cache/table) under AddressSanitizer, which also tells what is
# never given back. A toolchain that has none is skipped by name.
#
# The allocator is left out: its blocks are mimalloc's, of which the sanitizer knows nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly WORK=$PWD/target/sanitize TREE=$PWD/target/sanitize/tree
HOST=$(rustc -vV | sed -n 's/^host: //p')
readonly HOST
# The sanitizer is part of stable toolchains; the flag that turns it on is not stable.
export RUSTC_BOOTSTRAP=1 CARGO_TERM_COLOR=never
# The first failing case is enough, and nothing is to be written down about it.
export PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_FAILURE_PERSISTENCE=off
# Names and lines in what the sanitizer says cost little; unoptimised tests would take minutes.
readonly OPTIONS=(--config 'profile.dev.package.kvcache-core.opt-level=1' --config 'profile.dev.debug="line-tables-only"')

mkdir -p "$WORK"
exec 9>"$WORK/lock"
flock -n 9 || { echo "sanitize: another run is under way in $WORK" >&2; exit 1; }

# --- the sanitizer is there, and finds what it is there for

cat >"$WORK/probe.rs" <<'RUST'
fn main() {
    let block = Box::into_raw(Box::new([7u8; 64]));
    drop(unsafe { Box::from_raw(block) });
    println!("{}", unsafe { block.cast::<u8>().read_volatile() });
}
RUST
if ! rustc -Zsanitizer=address --target "$HOST" -o "$WORK/probe" "$WORK/probe.rs" >"$WORK/log" 2>&1; then
  tail -n 3 "$WORK/log" | sed 's/^/    /' >&2
  echo "sanitize: SKIPPED: $(rustc --version) has no AddressSanitizer for $HOST" >&2
  exit 0
fi
if "$WORK/probe" >"$WORK/log" 2>&1 || ! grep -q 'heap-use-after-free' "$WORK/log"; then
  tail -n 3 "$WORK/log" | sed 's/^/    /' >&2
  echo "sanitize: AddressSanitizer does not find a planted use after free" >&2
  exit 1
fi

# --- the tests

trap 'rm -rf "$TREE"' EXIT
scripts/core-alone.sh "$TREE"
cd "$TREE"
export CARGO_TARGET_DIR=$WORK RUSTFLAGS='-Zsanitizer=address'
cargo "${OPTIONS[@]}" test --locked --quiet --target "$HOST" -p kvcache-core --lib -- cache::
cargo "${OPTIONS[@]}" test --locked --quiet --target "$HOST" -p kvcache-core --test components -- \
  --skip folding_never_changes_what_a_counter_shows
