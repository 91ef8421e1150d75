// The schema of a `config` block as plain data; src/nomad turns it into Nomad's hclspec messages.
// Rules: helper/pluginutils/hclspecutils of Nomad.

/** An HCL type expression: "string", "any", "list(string)", ... */
export type HclType = string;

/** A spec that stands for a key of the block. */
export type NamedSpec =
  | { readonly kind: "attr"; readonly name: string; readonly type: HclType; readonly required: boolean }
  | { readonly kind: "block"; readonly name: string; readonly nested: HclSpec }
  | { readonly kind: "block_list"; readonly name: string; readonly nested: HclSpec }
  | { readonly kind: "block_map"; readonly name: string; readonly labels: readonly string[]; readonly nested: HclSpec };

export type HclSpec = NamedSpec | { readonly kind: "object"; readonly attributes: Readonly<Record<string, HclSpec>> };

export function attr(name: string, type: HclType, options: { required?: boolean } = {}): NamedSpec {
  return { kind: "attr", name, type, required: options.required ?? false };
}

/** At most once. */
export function block(name: string, nested: HclSpec): NamedSpec {
  return { kind: "block", name, nested };
}

/** Any number of them, in order. */
export function blockList(name: string, nested: HclSpec): NamedSpec {
  return { kind: "block_list", name, nested };
}

export function blockMap(name: string, labels: readonly string[], nested: HclSpec): NamedSpec {
  return { kind: "block_map", name, labels, nested };
}

/** The attributes' names are the keys. */
export function object(...attributes: readonly NamedSpec[]): HclSpec {
  return { kind: "object", attributes: Object.fromEntries(attributes.map((spec) => [spec.name, spec])) };
}
