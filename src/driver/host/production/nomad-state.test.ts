import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { parseAgent, readNomadState } from "./nomad-state.ts";

/** An answer of Nomad 1.11.3, without what nobody reads. */
const config = {
  ACL: { Enabled: true, PolicyTTL: 30_000_000_000, ReplicationToken: "" },
  BindAddr: "127.0.0.1",
  Addresses: { HTTP: "127.0.0.1", RPC: "127.0.0.1", Serf: "127.0.0.1" },
  TLSConfig: { CAFile: "", EnableHTTP: false, EnableRPC: false, VerifyHTTPSClient: false, VerifyServerHostname: false },
  Plugins: [
    { Args: null, Config: { enabled: true }, Name: "raw_exec" },
    { Args: null, Config: { vmm: "firecracker", jailer: [{ enabled: false }] }, Name: "litegix-fc-driver" },
  ],
  Ports: { HTTP: 4646, RPC: 4647, Serf: 4648 },
  Version: { Revision: "", Version: "1.11.3", VersionMetadata: "", VersionPrerelease: "" },
  Client: {
    Enabled: true,
    HostVolumes: null,
    Options: { "fingerprint.denylist": "env_aws" },
    Reserved: { CPU: 0, Cores: "", ReservedPorts: "22,4646-4648" },
  },
};

let server: Server;
let address: string;
let answer: { status: number; body: string } = { status: 200, body: JSON.stringify({ config }) };
const tokens: (string | undefined)[] = [];

before(async () => {
  server = createServer((request, response) => {
    tokens.push(request.headers["x-nomad-token"]?.toString());
    response.writeHead(request.url === "/v1/agent/self" ? answer.status : 404).end(answer.body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => server.close());

describe("the settings of a Nomad agent", () => {
  it("are those of its answer", () => {
    assert.deepEqual(parseAgent(JSON.stringify({ config })), {
      version: "1.11.3",
      acl: true,
      client: true,
      addresses: { HTTP: "127.0.0.1", RPC: "127.0.0.1", Serf: "127.0.0.1" },
      ports: { HTTP: 4646, RPC: 4647, Serf: 4648 },
      tls: { http: false, rpc: false, verifiesClients: false },
      reservedPorts: "22,4646-4648",
      rawExec: true,
      pluginConfig: { vmm: "firecracker", jailer: [{ enabled: false }] },
    });
  });

  it("have defaults for a server's answer without a client's part, and for the development agent's", () => {
    const server = parseAgent(JSON.stringify({ config: { Plugins: null, Client: null } }));
    assert.deepEqual(
      [server.client, server.acl, server.rawExec, server.addresses["HTTP"]],
      [false, false, false, "0.0.0.0"],
    );
    const client = { Enabled: true, Options: { "driver.raw_exec.enable": "true" } };
    assert.equal(parseAgent(JSON.stringify({ config: { Client: client } })).rawExec, true);
  });

  it("come from NOMAD_ADDR with the token of NOMAD_TOKEN", async () => {
    const state = await readNomadState({ NOMAD_ADDR: address, NOMAD_TOKEN: "secret" });
    assert.equal(state.reached && state.agent.version, "1.11.3");
    assert.equal(tokens.at(-1), "secret");
  });

  it("come over a unix socket too", async () => {
    const directory = await mkdtemp(join(tmpdir(), "litegix-nomad-"));
    const socket = join(directory, "s");
    const local = createServer((_, response) => response.end(JSON.stringify({ config })));
    await new Promise<void>((resolve) => local.listen(socket, resolve));
    try {
      assert.equal((await readNomadState({ NOMAD_ADDR: `unix://${socket}` })).reached, true);
    } finally {
      local.close();
      await rm(directory, { recursive: true });
    }
  });

  it("are unknown with the reason: refused, another server, nobody", async () => {
    answer = { status: 403, body: "Permission denied" };
    const refused = await readNomadState({ NOMAD_ADDR: address });
    assert.ok(!refused.reached && refused.refused);
    assert.match(refused.reason, /without a token/);
    answer = { status: 200, body: "<html>" };
    const other = await readNomadState({ NOMAD_ADDR: address });
    assert.ok(!other.reached && !other.refused);
    answer = { status: 500, body: "" };
    const failed = await readNomadState({ NOMAD_ADDR: address });
    assert.match(failed.reached ? "" : failed.reason, /status 500/);
    const nobody = await readNomadState({ NOMAD_ADDR: "http://127.0.0.1:1" });
    assert.match(
      nobody.reached ? "" : nobody.reason,
      /no Nomad agent answers at http:\/\/127\.0\.0\.1:1 \(.*NOMAD_ADDR/,
    );
  });
});
