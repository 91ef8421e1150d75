import { stat } from "node:fs/promises";

/** False also where it may not be looked at. */
export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
