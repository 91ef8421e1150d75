// The licences that the executable's works may have: the list in deny.toml, which cargo-deny reads too.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Component } from "./component.ts";
import { isAllowed } from "./spdx.ts";

export function readAllowed(root: string): Set<string> {
  const [, list = ""] =
    /^\[licenses\][^[]*?^allow = \[([^\]]*)\]/ms.exec(readFileSync(join(root, "deny.toml"), "utf8")) ?? [];
  const names = [...list.matchAll(/"([^"]+)"/g)].map(([, name = ""]) => name);
  if (names.length === 0) throw new Error("deny.toml has no list licenses.allow");
  return new Set(names);
}

/** Not crates: the notices offer what the one asks for, and the exception of the other allows every program. */
const besideList: ReadonlySet<string> = new Set(["glibc", "libgcc"]);

/** One line for each work whose licence is not allowed. */
export function refusedLicences(
  components: readonly Pick<Component, "name" | "version" | "licence">[],
  allowed: ReadonlySet<string>,
): string[] {
  return components
    .filter(({ name, licence }) => !besideList.has(name) && !isAllowed(licence, allowed))
    .map(
      ({ name, version, licence }) => `${name} ${version} has the licence "${licence}", which deny.toml does not allow`,
    );
}
