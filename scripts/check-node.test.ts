import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { checkNode, type NodeVerdict } from "./check-node.ts";

const directory = mkdtempSync(join(tmpdir(), "litegix-node-"));
const name = "node-v26.0.0-linux-x64";
const binary = join(directory, name, "bin/node");
const files: Record<string, Uint8Array> = {};
let server: Server;
let base: string;

before(async () => {
  mkdirSync(join(directory, name, "bin"), { recursive: true });
  writeFileSync(binary, "the program");
  execFileSync("tar", ["-czf", "archive", name], { cwd: directory });
  server = createServer((request, response) => {
    const content = files[request.url ?? ""];
    response.writeHead(content === undefined ? 404 : 200).end(content);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => {
  server.close();
  rmSync(directory, { recursive: true });
});

async function check(sums?: string): Promise<NodeVerdict> {
  const archive = readFileSync(join(directory, "archive"));
  const sum = createHash("sha256").update(archive).digest("hex");
  files["/v26.0.0/SHASUMS256.txt"] = Buffer.from(sums ?? `${"0".repeat(64)}  other.tar.gz\n${sum}  ${name}.tar.gz\n`);
  files[`/v26.0.0/${name}.tar.gz`] = archive;
  return await checkNode({ version: "26.0.0", binary, base });
}

test("our Node is compared with the program in the published archive", async () => {
  assert.equal((await check()).status, "same");
  writeFileSync(binary, "another program");
  const { status, text } = await check();
  assert.equal(status, "different");
  assert.match(text, /has sha256 .* the Node project's/);
});

test("an archive without a published checksum, or with another, is refused", async () => {
  assert.match((await check(`${"0".repeat(64)}  ${name}.tar.gz\n`)).text, /another checksum/);
  assert.match((await check("")).text, /does not name/);
});

test("an address that does not answer is told from a difference", async () => {
  const unreachable = await checkNode({ version: "26.0.0", binary, base: "http://127.0.0.1:1" });
  assert.equal(unreachable.status, "unreachable");
  assert.equal((await checkNode({ version: "27.0.0", binary, base })).status, "unreachable");
});
