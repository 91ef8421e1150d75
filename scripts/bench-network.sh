#!/usr/bin/env bash
# A VM's network: throughput, requests and latency through the driver's set-up against the bare TAP, and the time of set-up and removal.
. "$(dirname "$0")/lib/all.sh"
need iperf3 iperf3
need sockperf sockperf
need apache2-utils ab
. "$(dirname "$0")/lib/test-environment.sh"

exec node test/bench/network/bench-network.ts
