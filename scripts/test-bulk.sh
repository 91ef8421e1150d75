#!/usr/bin/env bash
# The amounts that the product promises, which take an emulated guest minutes: 256 MB in and out of an exec session, 1 GB of logs
# (which Nomad keeps in the temporary directory meanwhile).
# Arguments are options of `node --test`.
export LITEGIX_E2E_EXEC_MB=${LITEGIX_E2E_EXEC_MB:-256} LITEGIX_E2E_LOG_MB=${LITEGIX_E2E_LOG_MB:-1000}
exec "$(dirname "$0")/test-e2e.sh" --test-timeout=3600000 "$@" test/end-to-end/bulk.test.ts
