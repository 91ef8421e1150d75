// Commands for `nft -f`, as text. A table is named by its family and name: "inet litegix_12345678".

export type Table = `${"inet" | "netdev"} ${string}`;

/** `hook`: undefined for a chain that only other chains jump to. */
type Chain = (name: string, hook: string | undefined, rules: readonly string[], policy?: "accept" | "drop") => string[];

const addChain = (table: Table, name: string, hook: string | undefined, policy: "accept" | "drop"): string =>
  `add chain ${table} ${name}${hook === undefined ? "" : ` { type ${hook}; policy ${policy}; }`}`;

const addRules = (table: Table, name: string, rules: readonly string[]): string[] =>
  rules.map((rule) => `add rule ${table} ${name} ${rule}`);

/** Chains of a table that the same transaction makes anew. */
export const newChains =
  (table: Table): Chain =>
  (name, hook, rules, policy = "accept") => [addChain(table, name, hook, policy), ...addRules(table, name, rules)];

/** Chains of a table that stays: the rules replace those that the chain had before. */
export const replacedChains =
  (table: Table): Chain =>
  (name, hook, rules, policy = "accept") => [
    addChain(table, name, hook, policy),
    `flush chain ${table} ${name}`,
    ...addRules(table, name, rules),
  ];

/** `set`: the name of a set or a map. */
export const addElement = (table: Table, set: string, element: string): string =>
  `add element ${table} ${set} { ${element} }`;

// nft fails to delete what does not exist: each removal adds it first.

export const removeElement = (table: Table, set: string, element: string): string[] => [
  addElement(table, set, element),
  `delete element ${table} ${set} { ${element} }`,
];

export const removeChain = (table: Table, name: string): string[] => [
  `add chain ${table} ${name}`,
  `flush chain ${table} ${name}`,
  `delete chain ${table} ${name}`,
];

export const removeCounter = (table: Table, name: string): string[] => [
  `add counter ${table} ${name}`,
  `delete counter ${table} ${name}`,
];

export const removeTable = (table: Table): string[] => [`add table ${table}`, `delete table ${table}`];

/** Removes the driver's tables of both families. */
export const removeTables = (name: string): string[] => [
  ...removeTable(`inet ${name}`),
  ...removeTable(`netdev ${name}`),
];
