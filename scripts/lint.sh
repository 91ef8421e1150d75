#!/usr/bin/env bash
# Every static check; goes on after a failure and ends non-zero if there was one.
. "$(dirname "$0")/lib/all.sh"
cd "$project"

need_build_packages
install_missing
ensure_node_modules
ensure_rust_lint

checks=0
failed=()

# check "what" COMMAND...
check() {
  local what=$1 log=$logs/lint.log start status
  shift
  start=$(now_ms)
  set +e
  ( set -e; "$@" ) >"$log" 2>&1 </dev/null
  status=$?
  set -e
  checks=$((checks + 1))
  if [ "$status" -eq 0 ]; then
    done_line "$what" "$start"
  else
    cat "$log"
    printf 'FAILED  %s (%s)\n' "$what" "$(seconds_since "$start")"
    failed+=("$what")
  fi
}

# The generated code is committed; it must be what its sources give.
check_generated() {
  local fresh page
  fresh=$(mktemp -d)
  buf generate --output "$fresh"
  node scripts/generate-firecracker-api.ts "$fresh"
  node scripts/generate-docs.ts "$fresh"
  diff -r src/gen "$fresh/src/gen" || { echo "src/gen is not what its sources give: run make generate"; exit 1; }
  for page in configuration.md operate/production.md; do
    diff "docs/$page" "$fresh/docs/$page" || { echo "run make generate"; exit 1; }
  done
  rm -rf "$fresh"
}

check_shell() {
  local file
  for file in .ci/run example/*.sh example/lib/*.sh scripts/*.sh scripts/lib/*.sh test/rig/*.sh; do bash -n "$file"; done
}

check "types (tsc)" tsc --noEmit
check "format and lint (biome)" biome ci .
check "typed lint (oxlint)" oxlint --type-aware --deny-warnings src test scripts
check "dead code (knip)" knip
check "layers: imports go downwards" node scripts/check-layers.ts
check "English" node scripts/check-english.ts
check "generated code and docs are current" check_generated
check "layers: Rust modules import downwards" node scripts/check-rust-layers.ts
check "shell scripts parse (bash -n)" check_shell
check "dependencies: licences, sources, checksums" node scripts/check-dependencies.ts
check "Rust format (cargo fmt)" cargo fmt --all --check
check "Rust lint (clippy)" cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

if [ ${#failed[@]} -gt 0 ]; then
  printf 'lint: %d of %d checks failed:' "${#failed[@]}" "$checks"
  printf ' [%s]' "${failed[@]}"
  printf '\n'
  exit 1
fi
printf 'lint: %d checks passed\n' "$checks"
