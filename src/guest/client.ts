// The driver's side of the guest's API (proto/litegix/guest/v1). One connection for control calls, and one of its own for each
// exec session, so that a session whose reader stops holds up nothing else. Every call has a deadline.

import type { Socket } from "node:net";
import { type CallOptions, type Client, createClient } from "@connectrpc/connect";
import { Guest, type State, State as StateValue } from "../gen/litegix/guest/v1/guest_pb.js";
import { GrpcConnection } from "../system/grpc-connection.ts";
import { pollUntil, Slots } from "../system/wait.ts";
import { dial } from "./dial.ts";
import { GuestIncompatibleError, GuestRefusedError, GuestUnreachableError } from "./errors.ts";
import { guestError } from "./guest-error.ts";
import { configureRequest, type GuestSetup } from "./setup.ts";
import { type GuestStats, guestStats } from "./stats.ts";

export const guestPort = 10;
/** The guest's port for bulk streams (FrameKind in guest.proto). */
const bulkPort = 11;
/** Generations of guest.proto that this driver speaks. A guest lives as long as its VM, across upgrades of the driver. */
export const guestGenerations: Generations = { min: 1, max: 1 };
const maxMessageBytes = 1 << 20;
const callTimeoutMs = 5_000;
/** For mounts and the task's first program on a busy host. The guest has a deadline of its own. */
const startTimeoutMs = 90_000;
/** On a busy host a guest may get no CPU for seconds. The driver reports it as silent only after this time. */
const defaultFirstAnswerMs = 15_000;
/**
 * Limits the exec sessions that one guest starts at the same time. Fifty at once would all be answered as late as the last one, and
 * the driver could not tell a busy guest from one that hangs.
 */
const maxStarting = 8;

export interface Generations {
  readonly min: number;
  readonly max: number;
}

export interface GuestClientOptions {
  readonly vsockPath: string;
  /** Default: all generations that this driver speaks. */
  readonly generations?: Generations;
  /** Default: false. True if guest and driver have agreed on a generation already: no Hello is sent. */
  readonly greeted?: boolean;
  /** How long an exec session waits for the guest's first answer. Default: 15 s. */
  readonly firstAnswerMs?: number;
}

export interface GuestFacts {
  readonly version: string;
  readonly kernelRelease: string;
  readonly state: "booted" | "configured" | "running" | "exited";
  readonly uptimeMs: number;
}

export class GuestClient implements Disposable {
  readonly #options: GuestClientOptions;
  readonly #connection: GrpcConnection;
  readonly #client: Client<typeof Guest>;
  readonly startSlots = new Slots(maxStarting);
  #lastAnswerMs = Number.NEGATIVE_INFINITY;
  readonly firstAnswerMs: number;
  #greeted: boolean;

  constructor(options: GuestClientOptions) {
    this.#options = options;
    this.#greeted = options.greeted ?? false;
    this.firstAnswerMs = options.firstAnswerMs ?? defaultFirstAnswerMs;
    // The driver first dials while the guest boots: Firecracker keeps the connection and completes it as soon as the agent listens.
    this.#connection = new GrpcConnection({
      open: (signal) => this.#dial({ port: guestPort, timeoutMs: callTimeoutMs, signal }),
      maxMessageBytes,
    });
    this.#client = createClient(Guest, this.#connection.transport);
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }

  /** When the guest's agent last answered any call, by `performance.now()`. It tells a slow agent from one that hangs. */
  get lastAnswerMs(): number {
    return this.#lastAnswerMs;
  }

  noteAnswer(): void {
    this.#lastAnswerMs = performance.now();
  }

  /** Attaches a bulk stream; the caller owns and destroys the socket. Fails with GuestUnreachableError. */
  async attach(options: { timeoutMs: number; signal: AbortSignal }): Promise<Socket> {
    return await this.#dial({ port: bulkPort, ...options });
  }

  #dial(options: { port: number; timeoutMs: number; signal: AbortSignal }): Promise<Socket> {
    return dial({ socketPath: this.#options.vsockPath, ...options });
  }

  /** Tries until the guest's agent answers, at most `timeoutMs` or until `deadline`. Fails with GuestUnreachableError or GuestRefusedError. */
  async waitUntilReady(options: {
    timeoutMs: number;
    deadline?: AbortSignal;
    signal: AbortSignal;
  }): Promise<GuestFacts> {
    let last: unknown;
    return await pollUntil({
      attempt: async () => {
        try {
          return await this.hello({ signal: options.signal });
        } catch (error) {
          options.signal.throwIfAborted();
          if (!(error instanceof GuestUnreachableError)) throw error;
          last = error;
          return undefined;
        }
      },
      intervalMs: 20,
      timeoutMs: options.timeoutMs,
      deadline: options.deadline,
      onTimeout: (elapsedMs) =>
        new GuestUnreachableError({
          reason: `its agent did not come up within ${(elapsedMs / 1000).toFixed(1)} s`,
          cause: last,
        }),
      signal: options.signal,
    });
  }

  /** Fails with GuestIncompatibleError if guest and driver have no generation of the protocol in common. */
  async hello(options: { signal?: AbortSignal | undefined } = {}): Promise<GuestFacts> {
    const entropy = crypto.getRandomValues(new Uint8Array(64));
    const { min, max } = this.#options.generations ?? guestGenerations;
    const request = { generationMin: min, generationMax: max, entropy };
    const answer = await this.#send(options.signal, (call) => this.#client.hello(request, call)).catch(
      (error: unknown) => {
        if (!(error instanceof GuestRefusedError) || error.reason !== "not_running") throw error;
        throw new GuestIncompatibleError({ reason: error.text, cause: error });
      },
    );
    const { generation } = answer;
    if (generation < min || generation > max) {
      throw new GuestIncompatibleError({
        reason: `the guest speaks generation ${generation} of its protocol, the driver ${min} to ${max}`,
      });
    }
    this.#greeted = true;
    return {
      version: answer.version,
      kernelRelease: answer.kernelRelease,
      state: stateName(answer.state),
      uptimeMs: Number(answer.uptimeNs / 1_000_000n),
    };
  }

  async configure(options: { setup: GuestSetup; signal?: AbortSignal | undefined }): Promise<void> {
    const request = configureRequest(options.setup);
    await this.#call(options.signal, (call) => this.#client.configure(request, { ...call, timeoutMs: startTimeoutMs }));
  }

  /** Resolves with the times at which the guest reached each step of its boot. */
  async start(
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<{ bootSteps: readonly { name: string; uptimeMs: number }[] }> {
    const answer = await this.#call(options.signal, (call) =>
      this.#client.start({}, { ...call, timeoutMs: startTimeoutMs }),
    );
    return { bootSteps: answer.bootSteps.map(({ name, uptimeNs }) => ({ name, uptimeMs: Number(uptimeNs) / 1e6 })) };
  }

  /** Replaces the group's other tasks in the guest's /etc/hosts. Addresses are 4 or 16 bytes. */
  async setPeers(options: {
    peers: readonly { readonly name: string; readonly address: Uint8Array }[];
    signal?: AbortSignal | undefined;
  }): Promise<void> {
    const request = { peers: options.peers.map((peer) => ({ ...peer })) };
    await this.#call(options.signal, (call) => this.#client.setPeers(request, call));
  }

  /** `signalNumber` is Linux' number. */
  async sendSignal(options: { signalNumber: number; all?: boolean; signal?: AbortSignal | undefined }): Promise<void> {
    const request = { signal: options.signalNumber, all: options.all ?? false };
    await this.#call(options.signal, (call) => this.#client.signal(request, call));
  }

  async stats(options: { signal?: AbortSignal | undefined } = {}): Promise<GuestStats> {
    const answer = await this.#call(options.signal, (call) => this.#client.stats({}, call));
    return guestStats(answer);
  }

  /** Sends Hello once, before any other call: another driver process may have started this guest. */
  async greet(signal?: AbortSignal): Promise<void> {
    if (!this.#greeted) await this.hello({ signal });
  }

  /** As `greet`, but asks a silent guest again until `signal` aborts. Any other failure ends it at once. */
  async greetPatiently(signal: AbortSignal): Promise<void> {
    for (;;) {
      try {
        await this.greet(signal);
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof GuestUnreachableError && error.silent)) throw error;
      }
    }
  }

  async #call<T>(signal: AbortSignal | undefined, run: (options: CallOptions) => Promise<T>): Promise<T> {
    await this.greet(signal);
    return await this.#send(signal, run);
  }

  async #send<T>(signal: AbortSignal | undefined, run: (options: CallOptions) => Promise<T>): Promise<T> {
    try {
      const answer = await run({ timeoutMs: callTimeoutMs, ...(signal === undefined ? {} : { signal }) });
      this.noteAnswer();
      return answer;
    } catch (error) {
      signal?.throwIfAborted();
      throw guestError(error);
    }
  }
}

function stateName(state: State): GuestFacts["state"] {
  switch (state) {
    case StateValue.CONFIGURED:
      return "configured";
    case StateValue.RUNNING:
      return "running";
    case StateValue.EXITED:
      return "exited";
    default:
      return "booted";
  }
}
