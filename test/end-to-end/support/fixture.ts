// Most test files share these: a registry with the busybox image, and an agent whose driver pulls docker.io from it.
import { after, before } from "node:test";
import { Agent, type AgentOptions } from "./agent.ts";
import { busyboxLayout, skipVms } from "./environment.ts";
import { Registry } from "./registry.ts";

/** The agent's options. */
export type FixtureOptions = Pick<
  AgentOptions,
  | "env"
  | "networkInterface"
  | "agentConfig"
  | "clientConfig"
  | "cniNetworks"
  | "statsInterval"
  | "baseDiskMib"
  | "rawExec"
>;

export class Fixture {
  #registry: Registry | undefined;
  #agent: Agent | undefined;
  #ready: Promise<void> = Promise.resolve();

  /** Call it at a test file's top level: it starts everything before the file's tests and ends it after them. */
  static use(pluginConfig?: (registryAddress: string) => string, options: FixtureOptions = {}): Fixture {
    const fixture = new Fixture();
    before(() => {
      if (skipVms === false) fixture.#ready = fixture.#start(pluginConfig, options);
      return fixture.#ready;
    });
    after(() => fixture.#stop());
    return fixture;
  }

  /** For hooks at a file's top level: node:test begins each without waiting for the one before. */
  async ready(): Promise<void> {
    await this.#ready;
  }

  get registry(): Registry {
    if (this.#registry === undefined) throw new Error("the registry has not been started");
    return this.#registry;
  }

  get agent(): Agent {
    if (this.#agent === undefined) throw new Error("the agent has not been started");
    return this.#agent;
  }

  async #start(
    pluginConfig: ((registryAddress: string) => string) | undefined,
    options: FixtureOptions,
  ): Promise<void> {
    this.#registry = await Registry.start();
    const { address } = this.#registry;
    await this.#registry.push({ source: `oci:${busyboxLayout}:latest`, name: "library/busybox:latest" });
    // The driver connects to this host's own registries only if the operator names them.
    const allowed = 'registries_allowed = ["*", "127.0.0.1"]';
    this.#agent = await Agent.start({
      ...options,
      pluginConfig: `${allowed}\n${pluginConfig?.(address) ?? `registry "docker.io" { mirrors = ["http://${address}"] }`}`,
    });
  }

  async #stop(): Promise<void> {
    await this.#agent?.[Symbol.asyncDispose]();
    await this.#registry?.[Symbol.asyncDispose]();
  }
}
