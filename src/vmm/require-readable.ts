// A file that VMs of several users share: each of them must be able to read it.
import { stat } from "node:fs/promises";
import { JailError } from "./errors.ts";

/** Fails with JailError, or as stat does. */
export async function requireReadable(path: string): Promise<void> {
  const facts = await stat(path);
  if ((facts.mode & 0o004) !== 0) return;
  throw new JailError({ reason: `the VM's user may not read ${path}`, cure: `chmod o+r ${path}` });
}
