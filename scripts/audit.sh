#!/usr/bin/env bash
# Looks all dependencies up in the public lists of known faults, and compares Node with the Node project's own binary. It needs a
# network. A part that can't be checked says so, and fails only with LITEGIX_AUDIT=strict, which is for releases.
# LITEGIX_ADVISORY_DB: another address of the RustSec database, such as a mirror.
. "$(dirname "$0")/lib/all.sh"
cd "$project"

need_build_packages
need git git
install_missing
ensure_node_modules
ensure_rust

cargo_deny_wanted=0.20.2
advisories=${LITEGIX_ADVISORY_DB:-https://github.com/RustSec/advisory-db}
output=$logs/audit.log
status=0

passed() { printf 'ok      %s\n' "$1"; }

# refused "what": shows the output and goes on.
refused() {
  cat "$output"
  printf 'FAILED  %s\n' "$1"
  status=1
}

not_checked() {
  printf 'NOT CHECKED  %s: %s\n' "$1" "$2"
  [ "${LITEGIX_AUDIT:-}" != strict ] || status=1
}

audit_npm() {
  local what="npm packages: known faults"
  # The exit status is 1 for a fault and for a registry without such a list alike.
  if npm audit --json >"$output" 2>"$output.err"; then
    passed "$what"
  elif grep -q auditReportVersion "$output"; then
    npm audit >"$output" 2>&1 || true
    refused "$what"
  else
    not_checked "$what" "$(grep -m 1 -E 'npm (warn audit|error)' "$output.err" || echo 'the registry gives no answer')"
  fi
}

# Puts cargo-deny on PATH; its build takes some minutes, once.
ensure_cargo_deny() {
  PATH=$cache/cargo-deny-$cargo_deny_wanted/bin:$PATH
  command -v cargo-deny >/dev/null ||
    step cargo-deny "build cargo-deny $cargo_deny_wanted" \
      cargo install --locked --quiet --root "$cache/cargo-deny-$cargo_deny_wanted" "cargo-deny@$cargo_deny_wanted"
}

# deny "what" FOLDER CHECK...: cargo-deny for the package or workspace in FOLDER.
deny() {
  local what=$1 folder=$2 config=$logs/deny.toml
  shift 2
  sed "s|^\[advisories\]|&\ndb-path = \"$cache/advisory-db\"\ndb-urls = [\"$advisories\"]|" deny.toml >"$config"
  if cargo-deny --config "$config" --manifest-path "$folder/Cargo.toml" --locked check --hide-inclusion-graph "$@" >"$output" 2>&1; then
    passed "$what"
  else
    refused "$what"
  fi
}

audit_rust() {
  local what="Rust crates: known faults" source
  if ! timeout 30 git ls-remote --quiet "$advisories" HEAD >/dev/null 2>"$output"; then
    not_checked "$what" "$advisories can't be reached ($(tail -n 1 "$output"))"
    if command -v cargo-deny >/dev/null; then deny "Rust crates: licences, bans, sources" . licenses bans sources; fi
    return
  fi
  ensure_cargo_deny
  deny "Rust crates: licences, bans, sources, known faults" . advisories licenses bans sources
  source=$(find "$cache/vhost-device-vsock" -mindepth 2 -maxdepth 2 -name source -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
  if [ -n "$source" ]; then
    deny "vhost-device-vsock's crates: known faults" "$source" advisories
  else
    not_checked "vhost-device-vsock's crates: known faults" "it has not been built here: run make build"
  fi
}

audit_node() {
  local what="Node is the Node project's own binary" result
  node scripts/check-node.ts >"$output" 2>&1 && result=0 || result=$?
  case $result in
    0) passed "$what" ;;
    3) not_checked "$what" "$(tail -n 1 "$output")" ;;
    *) refused "$what" ;;
  esac
}

audit_npm
audit_rust
audit_node
exit "$status"
