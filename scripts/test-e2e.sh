#!/usr/bin/env bash
# End-to-end tests: the built driver in a real Nomad agent, with real VMs and a real registry on loopback.
# Arguments are test files; default: all of test/end-to-end.
# LITEGIX_E2E_VMM=firecracker runs them on Firecracker (FIRECRACKER or PATH says where it is).
. "$(dirname "$0")/lib/all.sh"
. "$(dirname "$0")/lib/test-environment.sh"

# One file after the other: each has an agent of its own, and a VM under emulation takes a core.
tests=(node --test --test-concurrency=1 --test-timeout=300000)

if [ $# -gt 0 ]; then exec "${tests[@]}" "$@"; fi
if [ "$(nproc)" -lt 2 ]; then exec "${tests[@]}" test/end-to-end/*.test.ts; fi

# Two runs side by side, since a test mostly waits for an agent, a boot or a deadline. The second one has a network namespace of
# its own: ports, TAPs, routes and packet rules of the two never meet. These files run in the first, on the host's network, about half
# of the time; container-images downloads Debian packages there.
on_host=(bulk container-images container endings examples exec life network-bridge network-cni protocol script-checks stats-signals task-config vm-options)

# All agents of a machine share Nomad's cpusets, and each one that starts makes them anew.
alone=(cores)

alone_files=()
host_files=()
namespace_files=()
for file in test/end-to-end/*.test.ts; do
  name=$(basename "$file" .test.ts)
  if [[ " ${alone[*]} " == *" $name "* ]]; then
    alone_files+=("$file")
  elif [[ " ${on_host[*]} " == *" $name "* ]]; then
    host_files+=("$file")
  else
    namespace_files+=("$file")
  fi
done

log=$logs/test-e2e-namespace.log
unshare --net -- sh -c 'ip link set lo up; exec "$@"' sh "${tests[@]}" --test-reporter=spec "${namespace_files[@]}" >"$log" 2>&1 &
second=$!
trap 'kill "$second" 2>/dev/null || true' EXIT
status=0
"${tests[@]}" --test-reporter=spec "${host_files[@]}" || status=1
printf 'e2e     %s files on the network of this host; now the output of the other %s, which ran meanwhile\n' \
  ${#host_files[@]} ${#namespace_files[@]}
wait "$second" || status=1
cat "$log"
"${tests[@]}" --test-reporter=spec "${alone_files[@]}" || status=1
exit "$status"
