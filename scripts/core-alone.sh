#!/usr/bin/env bash
# Copies the tracked files to FOLDER, as a workspace of the core and the simulator alone: what the rest of the workspace is
# built of, and the other tests, would take four fifths of the time of a build.
#
#   scripts/core-alone.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
readonly TREE=$1

rm -rf "$TREE"
mkdir -p "$TREE"
# Times of now, not of the files: what an earlier build has made of other files would be newer and count as fresh.
git ls-files -z | xargs -0 tar -cf - | tar -xmf - -C "$TREE"
awk '
  /^\[/ { section = $0 }
  /^members = / { $0 = "members = [\"crates/core\", \"crates/sim\"]" }
  section ~ /^\[(workspace|profile)/ { print }
' Cargo.toml >"$TREE/Cargo.toml"
awk '
  /^\[/ { section = $0 }
  section == "[dev-dependencies]" && /^[a-z]/ && !/^proptest / { next }
  { print }
' crates/core/Cargo.toml >"$TREE/crates/core/Cargo.toml"
# The versions stay; what is not needed leaves the lock.
(cd "$TREE" && cargo metadata --quiet --format-version 1 >/dev/null)
