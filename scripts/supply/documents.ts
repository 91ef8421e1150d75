// The documents beside the executable: a bill of materials (CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/) and the notices
// that the licences of others' works ask for.
import type { Component } from "./component.ts";
import { normalise } from "./spdx.ts";

interface Product {
  readonly name: string;
  readonly version: string;
  readonly licence: string;
  readonly sha256: string;
}

/** Without a time or a serial number: the same parts give the same bytes. */
export function billOfMaterials(product: Product, components: readonly Component[]): object {
  const merged = mergeParts(components);
  const ref = `pkg:generic/${product.name}@${product.version}`;
  return {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      component: {
        type: "application",
        "bom-ref": ref,
        name: product.name,
        version: product.version,
        licenses: [{ license: { id: product.licence } }],
        hashes: [{ alg: "SHA-256", content: product.sha256 }],
      },
    },
    components: merged.map(({ name, version, purl, licence, hash, part }) => ({
      type: name === "node" ? "platform" : "library",
      "bom-ref": purl,
      name,
      version,
      purl,
      licenses: [{ expression: normalise(licence) }],
      ...(hash && { hashes: [hash] }),
      properties: [{ name: "litegix:part", value: part }],
    })),
    dependencies: [{ ref, dependsOn: merged.map(({ purl }) => purl) }, ...merged.map(({ purl }) => ({ ref: purl }))],
  };
}

/** One work in several parts counts once. */
export function mergeParts(components: readonly Component[]): Component[] {
  const merged = new Map<string, Component>();
  for (const one of components) {
    const known = merged.get(one.purl);
    merged.set(one.purl, known === undefined ? one : { ...known, part: `${known.part}, ${one.part}` });
  }
  return [...merged.values()];
}

const line = "-".repeat(100);

/** Each text once, after a list of all works. */
export function notices(product: Product, components: readonly Component[]): string {
  const merged = mergeParts(components);
  const texts = new Map<string, string[]>();
  for (const { name, version, texts: own } of merged) {
    for (const text of own) texts.set(text, [...(texts.get(text) ?? []), `${name} ${version}`]);
  }
  const silent = merged.filter((one) => one.texts.length === 0).map(({ name, version }) => `${name} ${version}`);
  return [
    `Third-party notices of ${product.name} ${product.version}`,
    `${product.name} itself is licensed under ${product.licence}. Its executable contains the works below, each under its own licence.`,
    "The Rust programs are linked statically with the GNU C Library (LGPL-2.1-or-later). Their sources and the build scripts are public, so that anyone can link them with another version of that library.",
    merged
      .map(({ name, version, licence, part }) => `${name} ${version}: ${normalise(licence)} (in: ${part})`)
      .join("\n"),
    ...(silent.length > 0
      ? [
          `The packages of these bring no licence file; the texts of the same licences below hold for them too: ${silent.join(", ")}`,
        ]
      : []),
    ...[...texts].map(([text, users]) => `${line}\n${users.join(", ")}\n${line}\n\n${text}`),
    "",
  ].join("\n\n");
}
