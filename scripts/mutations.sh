#!/usr/bin/env bash
# Checks the checks: breaks the code in one known way at a time (scripts/mutations/*.patch) and expects the check that the
# patch names to fail. Works on a copy of the tracked files. Give names of mutations to run only those.
#
# A patch begins with a comment that says what it breaks, and a line `# caught-by: CHECK [FILTER]`. CHECK is `sim`,
# `sim-absences`, `sim-stores`, `unit`, or a test of the core (`replica`, `laws`, `components`, `durable`); FILTER names the
# tests to run of it.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly ROOT=$PWD WORK=$PWD/target/mutations
# One place for the copy and for what is built of it, so that builds are incremental from one mutation to the next.
readonly TREE=$WORK/tree LOG=$WORK/log
# A check that has neither passed nor failed after so many seconds says nothing.
readonly PATIENCE=900
export CARGO_TARGET_DIR=$WORK CARGO_TERM_COLOR=never CARGO_INCREMENTAL=1
# The first failing case is enough, and nothing is to be written down about it.
export PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_FAILURE_PERSISTENCE=off
# Unoptimised, the laws take minutes. Nobody debugs what is built here.
readonly FASTER=(--config 'profile.dev.package.kvcache-core.opt-level=1' --config 'profile.dev.debug=false')

die() {
  echo "mutations: $*" >&2
  exit 1
}

mkdir -p "$WORK"
exec 9>"$WORK/lock"
flock -n 9 || die "another run is under way in $WORK"
trap 'rm -rf "$TREE"' EXIT
scripts/core-alone.sh "$TREE"
# The index of a repository of its own is what a mutation is taken back to.
git -C "$TREE" init --quiet
git -C "$TREE" add --all

patches=()
if [ $# = 0 ]; then
  patches=(scripts/mutations/*.patch)
else
  for name in "$@"; do
    patches+=("scripts/mutations/$(basename "$name" .patch).patch")
    [ -e "${patches[-1]}" ] || die "there is no ${patches[-1]}"
  done
fi

caught_by() { # patch
  sed -n '1,/^diff/s/^# caught-by: //p' "$1"
}

arguments_of() { # check: sets `arguments` to those of cargo test
  case $1 in
    unit) arguments=(-p kvcache-core --lib) ;;
    replica | laws | components | durable) arguments=(-p kvcache-core --test "$1") ;;
    *) die "unknown check '$1'; there are sim, sim-absences, sim-stores, unit, replica, laws, components, durable" ;;
  esac
}

build() { # check
  case $1 in
    sim | sim-absences | sim-stores) cargo build --locked --quiet --profile sim -p sim ;;
    *)
      arguments_of "$1"
      cargo "${FASTER[@]}" test --locked --quiet "${arguments[@]}" --no-run
      ;;
  esac
}

simulate() { # number of runs, options. A few runs first: most mutations show there, and broken runs take long.
  local runs=$1
  shift
  timeout "$PATIENCE" "$WORK/sim/sim" --runs 200 "$@" \
    && timeout "$PATIENCE" "$WORK/sim/sim" --from 200 --runs $((runs - 200)) "$@"
}

run() { # check, filter
  case $1 in
    sim) simulate 3000 ;;
    sim-absences) simulate 2000 --long-absences ;;
    sim-stores) simulate 400 --stores ;;
    *)
      arguments_of "$1"
      timeout "$PATIENCE" cargo "${FASTER[@]}" test --locked --quiet "${arguments[@]}" -- ${2:+"$2"}
      ;;
  esac
}

# --- without any mutation all is well

readonly CHECKS=$(for patch in "${patches[@]}"; do caught_by "$patch"; done | sort -u)
while read -r check filter; do
  # A filter is only looked at where the whole check is not run anyway.
  [ -z "$filter" ] || ! grep -qx "$check" <<<"$CHECKS" || continue
  start=$SECONDS
  (cd "$TREE" && build "$check" && run "$check" "$filter") >"$LOG" 2>&1 9>&- </dev/null || {
    tail -n 40 "$LOG" >&2
    die "$check $filter fails on the code as it is"
  }
  echo "as it is, $check${filter:+ $filter} passes: $((SECONDS - start)) s"
done <<<"$CHECKS"

# --- one mutation after the other

first_failure() {
  sed -nE -e 's/^test (.*) \.\.\. FAILED$/\1/p' -e 's/^---- (.*) stdout ----$/\1/p' -e 's/^(seed [0-9]+) FAILS.*/\1/p' "$LOG" \
    | sed -n 1p
}

problems=0
table='mutation | caught by | seconds
--- | --- | ---
'
report() { # name, what became of it, seconds
  echo "$1: $2 ($3 s)"
  table+="$1 | $2 | $3"$'\n'
}
problem() {
  report "$@"
  problems=$((problems + 1))
  tail -n 15 "$LOG" | sed 's/^/    /'
}

for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch) start=$SECONDS
  read -r check filter <<<"$(caught_by "$patch")"
  git -C "$TREE" checkout --quiet -- .
  git -C "$TREE" clean --quiet -fd
  cd "$TREE"
  if ! git apply --whitespace=nowarn "$ROOT/$patch" >"$LOG" 2>&1 || git diff --quiet; then
    problem "$name" "DOES NOT APPLY" 0
  elif ! build "$check" >"$LOG" 2>&1 9>&- </dev/null; then
    problem "$name" "DOES NOT COMPILE" $((SECONDS - start))
  else
    outcome=0
    run "$check" "$filter" >"$LOG" 2>&1 9>&- </dev/null || outcome=$?
    case $outcome in
      0) problem "$name" "SURVIVES $check${filter:+ $filter}" $((SECONDS - start)) ;;
      124) problem "$name" "NO ANSWER of $check in time" $((SECONDS - start)) ;;
      *) report "$name" "$check: $(first_failure)" $((SECONDS - start)) ;;
    esac
  fi
  cd "$ROOT"
done

printf '\n%s' "$table"
[ "$problems" = 0 ] || die "$problems of ${#patches[@]} mutations are not caught, or their patches have to be renewed"
echo "all ${#patches[@]} mutations are caught"
