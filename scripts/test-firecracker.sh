#!/usr/bin/env bash
# The Firecracker half of the end-to-end tests: jailed VMs of the real Firecracker. Arguments are test files.
# FIRECRACKER and JAILER, or PATH, say where the two programs are; without a Firecracker nothing is tested and that is said.
# Where KVM runs no guests the tests run in test/rig's machine. LITEGIX_RIG=always and =never decide it without looking.
. "$(dirname "$0")/lib/all.sh"

find_firecracker
if [ -z "$firecracker" ]; then
  printf 'skipped: no firecracker binary\n'
  exit 0
fi

. "$(dirname "$0")/lib/test-environment.sh"
export LITEGIX_E2E_VMM=firecracker

if [ $# -eq 0 ]; then set -- test/end-to-end/firecracker*.test.ts; fi
exec_with_kvm node --test --test-concurrency=1 --test-timeout=600000 "$@"
