#!/usr/bin/env bash
# Unit tests: TypeScript on our own Node, then Rust.
. "$(dirname "$0")/lib/all.sh"
cd "$project"

need_build_packages
need squashfs-tools mksquashfs
need e2fsprogs mkfs.ext4
install_missing
ensure_node_modules
ensure_rust

status=0
node --test "src/**/*.test.ts" "scripts/**/*.test.ts" || status=1
cargo test --workspace --locked --quiet || status=1
exit "$status"
