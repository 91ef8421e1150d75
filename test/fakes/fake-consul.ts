// The part of a Consul agent that Nomad needs to register services and to report script checks, which Nomad has only
// with Consul. Source: Consul's HTTP API, agent endpoints.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface CheckUpdate {
  readonly name: string;
  readonly status: string;
  readonly output: string;
}

const self = {
  Config: { Version: "1.21.0", Revision: "fake", NodeName: "fake", Datacenter: "dc1", Server: true },
  Member: { Tags: { segment: "" } },
  DebugConfig: { ConnectEnabled: false, GRPCPort: -1, GRPCTLSPort: -1, DNSPort: -1, DNSAddrs: [] },
  Stats: {},
  Meta: {},
};

export class FakeConsul implements AsyncDisposable {
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  readonly #services = new Map<string, object>();
  readonly #checks = new Map<string, { Name: string }>();
  /** The checks' reports, in order. */
  readonly updates: CheckUpdate[] = [];

  static async start(): Promise<FakeConsul> {
    const consul = new FakeConsul();
    await new Promise<void>((resolve) => consul.#server.listen(0, "127.0.0.1", resolve));
    return consul;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const text = (await request.toArray()).join("");
    const body = text === "" ? {} : (JSON.parse(text) as Record<string, string>);
    const [, verb = "", id = ""] =
      /^\/v1\/agent\/([a-z]+(?:\/[a-z]+)?)(?:\/([^?]*))?/.exec(decodeURIComponent(request.url ?? "")) ?? [];
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(this.#handle(verb, id, body)));
  }

  #handle(verb: string, id: string, body: Record<string, string>): object {
    switch (verb) {
      case "self":
        return self;
      case "services":
        return Object.fromEntries(this.#services);
      case "checks":
        return Object.fromEntries(this.#checks);
      case "service/register": {
        const { ID = "", Name = "", ...rest } = body;
        this.#services.set(ID, { ...rest, ID, Service: Name });
        return {};
      }
      case "check/register":
        this.#checks.set(body["ID"] ?? "", { ...body, CheckID: body["ID"], Name: body["Name"] ?? "" } as {
          Name: string;
        });
        return {};
      case "service/deregister":
        this.#services.delete(id);
        return {};
      case "check/deregister":
        this.#checks.delete(id);
        return {};
      case "check/update":
        this.updates.push({
          name: this.#checks.get(id)?.Name ?? id,
          status: body["Status"] ?? "",
          output: body["Output"] ?? "",
        });
        return {};
      default:
        return {};
    }
  }
}
