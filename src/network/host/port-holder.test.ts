import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { describe, it } from "node:test";
import { findPortHolder, inodesAt } from "./port-holder.ts";

describe("the holder of a port", () => {
  it("is found by TCP and UDP, at one address and at all", async () => {
    const server = createServer().listen(0);
    await once(server, "listening");
    const socket = createSocket("udp4").bind(0, "127.0.0.1");
    await once(socket, "listening");
    const tcp = { protocol: "tcp", port: (server.address() as AddressInfo).port } as const;
    const udp = { protocol: "udp", port: socket.address().port } as const;
    for (const wanted of [tcp, udp]) {
      for (const address of ["127.0.0.1", "0.0.0.0"]) {
        const holder = await findPortHolder({ ...wanted, address });
        assert.equal(holder?.pid, process.pid);
      }
    }
    server.close();
    socket.close();
    assert.equal(await findPortHolder({ ...tcp, address: "127.0.0.1" }), undefined);
  });

  it("has the address, or all addresses of the host", () => {
    const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 070200C0:445D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0000 100 0 0 10 0
   1: 0100007F:445D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 1 0000 100 0 0 10 0
   2: 00000000:445E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 103 1 0000 100 0 0 10 0
   3: 070200C0:445D 0100007F:9999 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0000 100 0 0 10 0
`;
    assert.deepEqual(inodesAt(table, { address: "192.0.2.7", port: 17_501 }), ["101"]);
    assert.deepEqual(inodesAt(table, { address: "0.0.0.0", port: 17_501 }), ["101", "102"]);
    assert.deepEqual(inodesAt(table, { address: "192.0.2.8", port: 17_502 }), ["103"]);
    const six = "0: 0000000000000000FFFF0000070200C0:445D 0:0 0A 0:0 0:0 0 0 0 104 1";
    assert.deepEqual(inodesAt(six, { address: "192.0.2.7", port: 17_501 }), ["104"]);
    assert.deepEqual(inodesAt("", { address: "192.0.2.7", port: 1 }), []);
  });
});
