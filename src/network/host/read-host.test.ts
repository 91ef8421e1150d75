import assert from "node:assert/strict";
import { mkdtempDisposable, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { defaultConnections, readHostAddresses } from "./read-host.ts";

const trie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
Local:
  +-- 0.0.0.0/0 2 0 2
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 192.0.2.7
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
     |-- 172.26.64.1
        /32 host LOCAL
Id 19269:
  |-- 10.207.31.6
     /32 host LOCAL
`;
const inet6 = `00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000007 02 40 00 80     eth0
fe80000000000000a8bbccfffeddeeff 02 40 20 80     eth0
`;

describe("the host as its VMs must know it", () => {
  it("has the addresses that the kernel lists as local, but loopback's and links'", async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), "litegix-host-"));
    const files = { ipv4: join(directory.path, "fib_trie"), ipv6: join(directory.path, "if_inet6") };
    await writeFile(files.ipv4, trie);
    await writeFile(files.ipv6, inet6);
    assert.deepEqual(await readHostAddresses(files), { ipv4: ["172.26.64.1", "192.0.2.7"], ipv6: ["2001:db8::7"] });
    assert.deepEqual(await readHostAddresses({ ipv4: "/nonexistent", ipv6: "/nonexistent" }), { ipv4: [], ipv6: [] });
  });

  it("lets a VM have a sixteenth of the table of connections, within bounds", async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), "litegix-host-"));
    const path = join(directory.path, "max");
    const withMax = async (max: string): Promise<number> => {
      await writeFile(path, `${max}\n`);
      return await defaultConnections(path);
    };
    assert.deepEqual([await withMax("65536"), await withMax("1048576"), await withMax("8")], [4_096, 16_384, 1]);
    assert.equal(await defaultConnections("/nonexistent"), 16_384);
  });
});
