// Files that another process wrote: read whole, checked against a schema.
import { readFile } from "node:fs/promises";
import * as v from "valibot";

/** Undefined if there is no such file, or it does not fit. */
export async function readJson<S extends v.GenericSchema>(
  path: string,
  schema: S,
): Promise<v.InferOutput<S> | undefined> {
  try {
    const result = v.safeParse(schema, JSON.parse(await readFile(path, "utf8")));
    return result.success ? result.output : undefined;
  } catch {
    return undefined;
  }
}
