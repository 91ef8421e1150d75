#!/usr/bin/env bash
# Generates src/gen, from proto/ and from the description of Firecracker's API, and the generated
# pages of docs/ from src/driver.
. "$(dirname "$0")/lib/all.sh"
cd "$project"

ensure_node_modules
buf generate
node scripts/generate-firecracker-api.ts
node scripts/generate-docs.ts
