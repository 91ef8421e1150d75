#!/usr/bin/env bash
# Generates src/gen: from proto/, and the types of Firecracker's API from its description.
. "$(dirname "$0")/lib/all.sh"
cd "$project"

ensure_node_modules
buf generate
node scripts/generate-firecracker-api.ts
