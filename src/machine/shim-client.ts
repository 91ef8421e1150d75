// Talks to a VM's supervisor on its control socket (proto/litegix/shim/v1).
import { connect } from "node:net";
import { type Client, createClient } from "@connectrpc/connect";
import { Shim } from "../gen/litegix/shim/v1/shim_pb.js";
import { GrpcConnection } from "../system/grpc-connection.ts";
import { SupervisorIncompatibleError } from "./errors.ts";

/** Generations of shim.proto that this driver speaks. A supervisor lives as long as its VM, across upgrades of the driver. */
export const shimGenerations = { min: 1, max: 1 } as const;

/** Fails with SupervisorIncompatibleError. */
export function requireGeneration(status: { generation: number; version: string }): void {
  const { min, max } = shimGenerations;
  if (status.generation >= min && status.generation <= max) return;
  throw new SupervisorIncompatibleError({ ...status, spoken: shimGenerations });
}

const callTimeoutMs = 10_000;
const clockTimeoutMs = 3_000;
const maxMessageBytes = 64 * 1024;

export class ShimClient implements Disposable {
  readonly #connection: GrpcConnection;
  readonly #client: Client<typeof Shim>;

  constructor(options: { controlSocket: string }) {
    this.#connection = new GrpcConnection({
      open: () =>
        new Promise((resolve, reject) => {
          const socket = connect(options.controlSocket);
          socket.once("connect", () => {
            socket.off("error", reject);
            resolve(socket);
          });
          socket.once("error", reject);
        }),
      maxMessageBytes,
    });
    this.#client = createClient(Shim, this.#connection.transport);
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }

  async status(): Promise<{ id: string; shimPid: number; vmmPid: number; version: string; generation: number }> {
    const { id, shimPid, vmmPid, version, generation } = await this.#client.status({}, { timeoutMs: callTimeoutMs });
    return { id, shimPid, vmmPid, version, generation };
  }

  /**
   * Resolves when the supervisor has measured and set the guest's clock, with the clock's lead before and the
   * uncertainty of it.
   */
  async syncClock(signal: AbortSignal): Promise<{ offsetMs: number; uncertaintyMs: number }> {
    const { offsetNs, uncertaintyNs } = await this.#client.syncClock({}, { timeoutMs: clockTimeoutMs, signal });
    return { offsetMs: Number(offsetNs) / 1e6, uncertaintyMs: Number(uncertaintyNs) / 1e6 };
  }

  /** Resolves once the exit record is on disk. No deadline: a task may run for ever. */
  async wait(): Promise<void> {
    await this.#client.wait({});
  }

  /** Resolves when every process of the VM has been reaped. */
  async kill(): Promise<void> {
    await this.#client.kill({}, { timeoutMs: callTimeoutMs });
  }
}
