#!/usr/bin/env bash
# Exec and logs against raw_exec and a bare vsock copy, in one run: throughput both ways, latency, log throughput.
# The argument `firecracker` chooses that VMM; if KVM runs no guests, it measures in test/rig's machine.
. "$(dirname "$0")/lib/all.sh"

case ${1:-} in
  "") ;;
  firecracker)
    find_firecracker
    if [ -z "$firecracker" ]; then
      printf 'skipped: no firecracker binary\n'
      exit 0
    fi
    export LITEGIX_E2E_VMM=firecracker
    ;;
  *) fail "the argument is a VMM, firecracker, or none" ;;
esac

. "$(dirname "$0")/lib/test-environment.sh"

target_directory=${CARGO_TARGET_DIR:-$cache/target}
# Static: it runs in the guest, on an image without libraries.
cargo build --release --locked --quiet --target x86_64-unknown-linux-gnu --target-dir "$target_directory" \
  --package litegix-sys --example bench-copy
export LITEGIX_BENCH_COPY=$target_directory/x86_64-unknown-linux-gnu/release/examples/bench-copy

if [ "${LITEGIX_E2E_VMM:-}" = firecracker ]; then exec_with_kvm node test/bench/exec/bench-exec.ts; fi
exec node test/bench/exec/bench-exec.ts
