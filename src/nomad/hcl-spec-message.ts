// Converts our plain description of a `config` block to Nomad's message.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HclSpec } from "../driver/config/hcl-spec.ts";
import type { SpecSchema } from "../gen/nomad/hclspec/hcl_spec_pb.js";

type SpecInit = MessageInitShape<typeof SpecSchema>;

export function toSpecMessage(spec: HclSpec): SpecInit {
  switch (spec.kind) {
    case "attr":
      return { block: { case: "Attr", value: { name: spec.name, type: spec.type, required: spec.required } } };
    case "block":
      return {
        block: { case: "blockValue", value: { name: spec.name, nested: toSpecMessage(spec.nested) } },
      };
    case "block_list":
      return { block: { case: "blockList", value: { name: spec.name, nested: toSpecMessage(spec.nested) } } };
    case "block_map":
      return {
        block: {
          case: "blockMap",
          value: { name: spec.name, labels: [...spec.labels], nested: toSpecMessage(spec.nested) },
        },
      };
    case "object":
      return {
        block: {
          case: "object",
          value: {
            attributes: Object.fromEntries(
              Object.entries(spec.attributes).map(([key, value]) => [key, toSpecMessage(value)]),
            ),
          },
        },
      };
  }
}
