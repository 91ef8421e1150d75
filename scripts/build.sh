#!/usr/bin/env bash
# Builds dist/litegix-fc-driver; installs what that needs first.
. "$(dirname "$0")/lib/all.sh"
cd "$project"

need_build_packages
install_missing
ensure_node_modules
ensure_rust
node scripts/build.ts
