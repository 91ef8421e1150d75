// The driver's tables of packet rules, in this process's network namespace or another.
import { runSuccessfully } from "./command.ts";
import { waitFor } from "./wait.ts";

export async function nft(namespace: string | undefined, ...args: string[]): Promise<string> {
  const argv = namespace === undefined ? ["nft", ...args] : ["nsenter", `--net=${namespace}`, "nft", ...args];
  const [file = "", ...rest] = argv;
  return await runSuccessfully({ file, args: rest });
}

/** Family and name of each. */
export async function driverTables(namespace: string | undefined): Promise<string[]> {
  const lines = (await nft(namespace, "list", "tables")).split("\n");
  return lines.filter((line) => line.includes(" litegix_")).map((line) => line.replace(/^table /, ""));
}

/** Removes them, as software does that loads a firewall anew. Resolves when the driver has put its tables back. */
export async function removeTablesUntilTheyAreBack(options: { namespace?: string; tap: string }): Promise<void> {
  const { namespace, tap } = options;
  const tables = await driverTables(namespace);
  if (tables.length !== 2) throw new Error(`the driver has tables ${tables.join(", ") || "none"}, not two`);
  for (const table of tables) await nft(namespace, "delete", "table", ...table.split(" "));
  let last = "";
  await waitFor({
    what: `the tables ${tables.join(", ")} with rules of ${tap}`,
    timeoutMs: 60_000,
    attempt: async () => {
      const texts = await Promise.all(
        tables.map((table) => nft(namespace, "list", "table", ...table.split(" ")).catch(() => "")),
      );
      last = texts.join("\n");
      return texts.every((text) => text.includes(tap)) || undefined;
    },
    seen: () => last,
  });
}
