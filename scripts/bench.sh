#!/usr/bin/env bash
# Prints handshake time, time from StartTask to the workload's first output, the idle driver's memory, the executable's size.
. "$(dirname "$0")/lib/all.sh"
. "$(dirname "$0")/lib/test-environment.sh"

exec node test/bench/bench.ts
