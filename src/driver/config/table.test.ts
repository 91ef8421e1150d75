import assert from "node:assert/strict";
import { test } from "node:test";
import { pluginTable } from "./plugin/plugin-config.ts";
import { taskTables } from "./schemas.ts";
import { block, blocks, key, labelledBlocks, readTable, section, type Table } from "./table.ts";
import { boolean, integer, string } from "./values.ts";

const rows = {
  name: key("name", { reader: string, required: "a", doc: "" }),
  count: key("max_count", {
    reader: integer({ min: 0, max: 9, unit: "things" }),
    default: 3,
    emptyIsAbsent: true,
    doc: "",
  }),
  on: key("on", { reader: boolean, doc: "" }),
};
const table = {
  one: section("one", { rows: { count: rows.count }, doc: "" }),
  maybe: block("maybe", { rows, convert: ({ name, count }) => `${name}${count}`, doc: "" }),
  many: blocks("many", { rows, path: (map) => `many ${String(map.get("name"))}`, doc: "" }),
  labelled: labelledBlocks("host", "name", { rows: { on: rows.on }, doc: "" }),
};

test("absent blocks: a section has its defaults, the others are empty", () => {
  const absent = { one: { count: 3 }, maybe: undefined, many: [], labelled: {} };
  for (const config of [undefined, {}, new Map(), { one: null, maybe: null, many: null, host: null }]) {
    assert.deepEqual(readTable(table, config), absent);
  }
  assert.deepEqual(readTable(table, { one: [], maybe: [], many: [], host: {} }), absent);
});

test("blocks are maps or lists of maps, under the settings' names", () => {
  const config = {
    one: [{ max_count: "" }],
    maybe: new Map([["name", "x"]]),
    many: [
      { name: "a", on: "true" },
      new Map<string, unknown>([
        ["name", 5],
        ["max_count", "4"],
      ]),
    ],
    host: { "a.example": { on: false } },
  };
  assert.deepEqual(readTable(table, config), {
    one: { count: 3 },
    maybe: "x3",
    many: [
      { name: "a", count: 3, on: true },
      { name: "5", count: 4, on: undefined },
    ],
    labelled: { "a.example": { on: false } },
  });
});

for (const [config, message] of [
  [
    { one: { max_count: 10 } },
    /^config: one\.max_count = 10: must be a whole number of things from 0 to 9 \(config\)$/,
  ],
  [{ one: "x" }, /^config: one = "x": must be a block or a map \(config\)$/],
  [{ maybe: {} }, /^config: maybe\.name: is required, e\.g\. name = "a" \(config\)$/],
  [{ maybe: { name: "" } }, /^config: maybe\.name = "": must not be empty \(config\)$/],
  [{ maybe: [{ name: "a" }, { name: "b" }] }, /^config: maybe: must not be given more than once \(config\)$/],
  [{ many: [{ name: "b", no: 1 }] }, /^config: many b\.no: is not one of name, max_count, on \(config\)$/],
  [{ many: [{ name: new Map([["a", 1n]]) }] }, /name = \{"a":"1"\}: must be a string \(config\)$/],
  [
    { host: { "a.example": { on: "perhaps" } } },
    /^config: host "a\.example"\.on = "perhaps": must be true or false \(config\)$/,
  ],
] as const) {
  test(`refused: ${message.source}`, () => {
    assert.throws(() => readTable(table, config), { message });
  });
}

test("each key is there once, and documented in sentences", () => {
  const check = (...tables: Table[]): void => {
    const all = tables.flatMap((each) => Object.values(each));
    assert.deepEqual(new Set(all.map((row) => row.key)).size, all.length);
    for (const { key: name, help } of all) {
      assert.match(help.doc, /^["A-Z].*\.$/s, name);
      if (help.block !== undefined) check(help.block.rows);
    }
  };
  check(pluginTable);
  check(...Object.values(taskTables));
});
