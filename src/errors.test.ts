import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";

const sources = globSync("**/*.ts", { cwd: import.meta.dirname })
  .filter((path) => !path.endsWith(".test.ts") && !path.startsWith("gen/"))
  .map((path) => ({ path, text: readFileSync(join(import.meta.dirname, path), "utf8") }));

/** Places of a code: an error's declaration, a field or its type, a union of codes. */
const places = [
  /\b(?:driverError|super)\(\s*"[a-z_]+"/g,
  /\bcode(?::| =) "[a-z_]+"(?: \| "[a-z_]+")*/g,
  /\btype \w+Code =(?:\s*\|? "[a-z_]+")+/g,
];

/** The end of a VM as a driver sees it that has let go of that VM: no caller asks for it then. */
const internal = ["let_go"];

const codesIn = (text: string): string[] =>
  places.flatMap((place) => text.match(place) ?? []).flatMap((found) => found.match(/(?<=")[a-z_]+(?=")/g) ?? []);

describe("error codes", () => {
  it("that a user can meet stand in docs/errors.md, with their meaning and what to do; and no others", () => {
    const document = readFileSync(join(import.meta.dirname, "../docs/errors.md"), "utf8");
    const rows = [...document.matchAll(/^\| `([a-z_]+)` *\| (.+?) *\| (.+?) *\|$/gm)];
    const described = rows.map(([, code = ""]) => code);
    const codes = new Set(sources.flatMap(({ text }) => codesIn(text)));
    for (const code of internal) assert.ok(codes.delete(code), code);
    assert.deepEqual(described.toSorted(), [...codes].toSorted());
    assert.equal(document.match(/^\| `/gm)?.length, rows.length, "each row has three cells");
  });

  it("belong to errors of one base class", () => {
    const strays = sources.filter(({ text }) => /\bextends Error\b/.test(text)).map(({ path }) => path);
    assert.deepEqual(strays.toSorted(), ["system/error.ts"]);
  });
});
