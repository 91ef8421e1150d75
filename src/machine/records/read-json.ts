// Files that another process wrote: read whole, checked against a schema.
import { readFile, stat } from "node:fs/promises";
import * as v from "valibot";

/** Many times as large as any of them: a supervisor under a guest's control may write more. */
const maxBytes = 1024 * 1024;

/** Undefined if there is no such file, or it does not fit. */
export async function readJson<S extends v.GenericSchema>(
  path: string,
  schema: S,
): Promise<v.InferOutput<S> | undefined> {
  try {
    if ((await stat(path)).size > maxBytes) return undefined;
    const result = v.safeParse(schema, JSON.parse(await readFile(path, "utf8")));
    return result.success ? result.output : undefined;
  } catch {
    return undefined;
  }
}
