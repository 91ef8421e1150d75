#!/usr/bin/env bash
# End-to-end tests: the built driver in a real Nomad agent, with real VMs and a real registry on loopback.
# Arguments are test files; default: all of test/end-to-end.
# LITEGIX_E2E_VMM=firecracker runs them on Firecracker (FIRECRACKER or PATH says where it is).
. "$(dirname "$0")/lib/all.sh"
. "$(dirname "$0")/lib/test-environment.sh"

if [ $# -eq 0 ]; then set -- test/end-to-end/*.test.ts; fi
# One file at a time: each has an agent of its own, and a VM under emulation takes a core.
exec node --test --test-concurrency=1 --test-timeout=300000 "$@"
