// The schemas as Nomad receives them. After an agent's restart Nomad parses a running task's config against the newest
// schema, and kills the task if that fails. So a key may be added to the golden file, but never removed or changed. To
// add one: node --test --test-update-snapshots src/nomad/hcl-spec-message.test.ts
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { pluginConfigSchema, taskConfigSchema } from "../driver/config/schemas.ts";
import { type Spec, SpecSchema } from "../gen/nomad/hclspec/hcl_spec_pb.js";
import { toSpecMessage } from "./hcl-spec-message.ts";

/** One line a key, with all fields that are not empty, sorted by key: a protobuf map has no order of its own. */
function* linesOf(spec: Spec | undefined, indent: string): Generator<string> {
  assert.ok(spec?.block.case === "object", "a schema and a nested block are objects");
  const { attributes } = spec.block.value;
  for (const key of Object.keys(attributes).toSorted()) {
    const { case: kind, value } = attributes[key]?.block ?? {};
    const fields = Object.entries(value ?? {}).filter(([name]) => name !== "$typeName" && name !== "nested");
    const facts = fields.filter(([, fact]) => fact !== false && fact !== 0n && String(fact) !== "");
    yield `${indent}${[`${key}:`, kind, ...facts.map(([name, fact]) => `${name}=${String(fact)}`)].join(" ")}`;
    if (value !== undefined && "nested" in value) yield* linesOf(value.nested, `${indent}  `);
  }
}

test("the schemas are encoded as the golden file has them", (context) => {
  const lines = Object.entries({ plugin: pluginConfigSchema, task: taskConfigSchema }).flatMap(([name, schema]) => {
    const bytes = toBinary(SpecSchema, create(SpecSchema, toSpecMessage(schema)));
    return [name, ...linesOf(fromBinary(SpecSchema, bytes), "  ")];
  });
  const golden = join(import.meta.dirname, "hcl-spec-message.golden");
  context.assert.fileSnapshot(`${lines.join("\n")}\n`, golden, { serializers: [String] });
});
