#!/usr/bin/env bash
# Generated input for every parser of what comes from a guest or goes into one, LITEGIX_FUZZ_SECONDS (default 60) each.
. "$(dirname "$0")/lib/all.sh"
cd "$project"

need_build_packages
install_missing
ensure_node_modules
ensure_rust

seconds=${LITEGIX_FUZZ_SECONDS:-60}

# Rust's are the properties named any_*, which say that a parser answers whatever it is given; each round has new seeds.
fuzz_property() {
  local property=$1 log=$2 rounds=0
  local end=$((SECONDS + seconds))
  while [ "$SECONDS" -lt "$end" ]; do
    PROPTEST_CASES=5000 cargo test --workspace --locked --quiet "$property" -- --exact >"$log" 2>&1 || {
      cat "$log"
      return 1
    }
    rounds=$((rounds + 1))
  done
  printf 'fuzz: %s: %d inputs in %d s\n' "$property" $((rounds * 5000)) "$seconds"
}

# fuzz_rust PART PARTS: every so many-th of the properties, beginning with this one.
fuzz_rust() {
  local part=$1 parts=$2 index
  for ((index = part - 1; index < ${#properties[@]}; index += parts)); do
    fuzz_property "${properties[index]}" "$logs/fuzz-$part.log" || return 1
  done
}

cargo test --workspace --locked --quiet --no-run
mapfile -t properties < <(cargo test --workspace --locked --quiet any_ -- --list --format terse | sed -n 's/: test$//p' | grep '::any_')
[ ${#properties[@]} -gt 0 ] || fail "no properties found to fuzz the Rust parsers with"

# Side by side: each keeps one CPU busy.
running=()
for part in 1 2; do
  fuzz_rust "$part" 2 &
  running+=($!)
  node test/fuzz/fuzz.ts "$part/2" &
  running+=($!)
done
status=0
for process in "${running[@]}"; do wait "$process" || status=1; done
exit "$status"
