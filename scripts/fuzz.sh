#!/usr/bin/env bash
# Generated input for every parser of what comes from a guest or goes into one, LITEGIX_FUZZ_SECONDS (default 60) each.
. "$(dirname "$0")/lib/all.sh"
cd "$project"

need_build_packages
install_missing
ensure_node_modules
ensure_rust

# The properties named any_* say that a parser answers whatever it is given; each round has new seeds.
fuzz_rust() {
  local seconds=${LITEGIX_FUZZ_SECONDS:-60} rounds=0
  local end=$((SECONDS + seconds))
  while [ "$SECONDS" -lt "$end" ]; do
    PROPTEST_CASES=5000 cargo test --workspace --locked --quiet any_ >"$logs/fuzz.log" 2>&1 || {
      cat "$logs/fuzz.log"
      return 1
    }
    rounds=$((rounds + 1))
  done
  printf 'fuzz: Rust parsers: %d rounds of 5000 inputs each in %d s\n' "$rounds" "$seconds"
}

# Side by side: each keeps one CPU busy.
fuzz_rust &
running=($!)
for part in 1/2 2/2; do
  node test/fuzz/fuzz.ts "$part" &
  running+=($!)
done
status=0
for process in "${running[@]}"; do wait "$process" || status=1; done
exit "$status"
