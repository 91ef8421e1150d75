// One table a `config` block. Its rows give the schema for Nomad, the parser, docs/configuration.md and the options of `doctor`.
// A table's property names are those of the parsed settings; a row's key is the name that people write.
import { ConfigError } from "../errors.ts";
import { attr, blockList, blockMap, block as blockSpec, type HclSpec, type NamedSpec, object } from "./hcl-spec.ts";
import { type Reader, strings, toBlocks, toMap } from "./values.ts";

export interface Row<T> {
  readonly key: string;
  readonly spec: NamedSpec;
  /** `value` may be null or undefined; `path` is the key's full name. Fails with ConfigError. */
  readonly read: (value: unknown, path: string) => T;
  readonly help: Help;
}

export interface Help {
  readonly doc: string;
  readonly type: string;
  /** "required", or the value or the words that stand for an absent key; undefined for a block, and if absence changes nothing. */
  readonly default: string | undefined;
  readonly choices: readonly string[] | undefined;
  /** `doctor` takes the key as an option; this names the option's value. */
  readonly flag: string | undefined;
  readonly block: BlockHelp | undefined;
}

export interface BlockHelp {
  readonly rows: Table;
  /** The first line as people write it, such as `registry "HOST"`. */
  readonly heading: string;
  /** Blocks of one shape are documented once, under this name. */
  readonly shape: string | undefined;
}

export type Table = Readonly<Record<string, Row<unknown>>>;

/** The settings that a table's rows give. */
export type Parsed<T extends Table> = { readonly [K in keyof T]: ReturnType<T[K]["read"]> };

/** Fails with ConfigError, whose message names the key, the value and the rule. */
export function readTable<T extends Table>(table: T, config: unknown, path?: string): Parsed<T> {
  const map = toMap(config) ?? new Map<string, unknown>();
  const entries = Object.entries(table).map(([name, { key, read }]) => [
    name,
    read(map.get(key), path === undefined ? key : `${path}.${key}`),
  ]);
  return Object.fromEntries(entries) as Parsed<T>;
}

/** Nomad refuses all other keys by this schema, and names them. */
export function tableSchema(...tables: readonly Table[]): HclSpec {
  return object(...tables.flatMap((table) => Object.values(table).map(({ spec }) => spec)));
}

interface KeyOptions<T> {
  readonly reader: Reader<T>;
  /** The type that Nomad checks. Default: "any", which leaves the check to the reader. */
  readonly hcl?: string;
  readonly doc: string;
  /** Read in place of an absent value. */
  readonly default?: unknown;
  /** For the documentation: the meaning of an absent value, if there is no default value. */
  readonly absent?: string;
  /** The key must be there and not be empty; this is an example for the message. */
  readonly required?: string;
  /** The empty string counts as absent: configurations are often written by templates. */
  readonly emptyIsAbsent?: boolean;
  readonly flag?: string;
}

export function key<T>(name: string, options: KeyOptions<T> & ({ default: unknown } | { required: string })): Row<T>;
export function key<T>(name: string, options: KeyOptions<T>): Row<T | undefined>;
export function key<T>(name: string, options: KeyOptions<T>): Row<T | undefined> {
  const { reader, required, hcl = "any", emptyIsAbsent = false } = options;
  return {
    key: name,
    spec: attr(name, hcl),
    read: (value, path) => {
      if (value !== null && value !== undefined && !(emptyIsAbsent && value === "")) {
        const result = reader.read(value, path);
        if (required !== undefined && value === "") throw new ConfigError(path, value, "must not be empty");
        return result;
      }
      if (required !== undefined) throw new ConfigError(path, undefined, `is required, e.g. ${name} = "${required}"`);
      return options.default === undefined ? undefined : reader.read(options.default, path);
    },
    help: {
      doc: options.doc,
      type: hcl === "list(string)" ? strings.type : reader.type,
      default: required === undefined ? (options.absent ?? showDefault(options.default)) : "required",
      choices: reader.choices,
      flag: options.flag,
      block: undefined,
    },
  };
}

/** As HCL has it. */
function showDefault(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  const text = JSON.stringify(value);
  return /^(?:\[\]|\{\}|"")$/.test(text) ? "none" : `\`${text}\``;
}

interface BlockOptions<T extends Table, U> {
  readonly rows: T;
  readonly doc: string;
  /** Checks that go across keys, and conversions. Default: the rows' values as they are. */
  readonly convert?: (values: Parsed<T>, path: string) => U;
  /** The block's name in messages, if it is not the key. */
  readonly path?: (block: ReadonlyMap<string, unknown>) => string;
  readonly shape?: string;
}

/** At most one, whose absence counts as an empty one: its keys' defaults hold. */
export function section<T extends Table, U = Parsed<T>>(name: string, options: BlockOptions<T, U>): Row<U> {
  const optional = block(name, options);
  return { ...optional, read: (value, path) => optional.read(value, path) ?? readBlock(options, new Map(), path) };
}

/** At most one; undefined if it is absent. */
export function block<T extends Table, U = Parsed<T>>(name: string, options: BlockOptions<T, U>): Row<U | undefined> {
  return {
    key: name,
    spec: blockSpec(name, tableSchema(options.rows)),
    read: (value, path) => {
      if (value === null || value === undefined) return undefined;
      const [first, second] = toBlocks(value, path);
      if (second !== undefined) throw new ConfigError(path, undefined, "must not be given more than once");
      return first && readBlock(options, first, path);
    },
    help: blockHelp(options, "block", name),
  };
}

/** Any number of blocks, in order. `free`: declared "any" to Nomad, so that a list of maps and one map are taken too. */
export function blocks<T extends Table, U = Parsed<T>>(
  name: string,
  options: BlockOptions<T, U> & { readonly free?: boolean },
): Row<U[]> {
  return {
    key: name,
    spec: options.free === true ? attr(name, "any") : blockList(name, tableSchema(options.rows)),
    read: (value, path) => {
      if (value === null || value === undefined) return [];
      return toBlocks(value, path).map((map) => readBlock(options, map, path));
    },
    help: blockHelp(options, "block, any number", name),
  };
}

/** Blocks with a label each, by their labels. "any" in them makes Nomad panic (hcldec's BlockMapSpec). */
export function labelledBlocks<T extends Table, U = Parsed<T>>(
  name: string,
  label: string,
  options: BlockOptions<T, U>,
): Row<Readonly<Record<string, U>>> {
  return {
    key: name,
    spec: blockMap(name, [label], tableSchema(options.rows)),
    read: (value, path) =>
      Object.fromEntries(
        [...(toMap(value) ?? [])].map(([given, map]) => [
          given,
          readBlock(options, toMap(map) ?? new Map(), `${path} "${given}"`),
        ]),
      ),
    help: blockHelp(options, "block, any number", `${name} "${label.toUpperCase()}"`),
  };
}

function readBlock<T extends Table, U>(
  options: BlockOptions<T, U>,
  map: ReadonlyMap<string, unknown>,
  defaultPath: string,
): U {
  const { rows, convert } = options;
  const path = options.path?.(map) ?? defaultPath;
  // Nomad has not checked a block that is declared "any": a misspelt key must not vanish.
  const known = Object.values(rows).map((row) => row.key);
  const other = [...map.keys()].find((name) => !known.includes(name));
  if (other !== undefined) throw new ConfigError(`${path}.${other}`, undefined, `is not one of ${known.join(", ")}`);
  const values = readTable(rows, map, path);
  return convert === undefined ? (values as U) : convert(values, path);
}

function blockHelp<T extends Table, U>(options: BlockOptions<T, U>, type: string, heading: string): Help {
  const { doc, rows, shape } = options;
  return { doc, type, default: undefined, choices: undefined, flag: undefined, block: { rows, heading, shape } };
}

type Present<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** Without the fields that are undefined. */
export function present<T extends object>(fields: T): Present<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Present<T>;
}
