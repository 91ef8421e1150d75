// A check of `doctor --production`: one recommendation for hosts that run other people's VMs, and how to tell if it is followed.
// The table of all checks also gives docs/operate/production.md.
import type { PluginSettings } from "../../config/plugin/plugin-config.ts";
import type { ReadyHost, UnreadyHost } from "../inspect-host.ts";
import type { HostState } from "./host-state.ts";
import type { NomadState } from "./nomad-state.ts";

export type CheckStatus = "ok" | "warning" | "not_applicable" | "unknown";

export interface Verdict {
  readonly status: CheckStatus;
  /** One sentence or part of one, without its full stop. */
  readonly found: string;
}

export interface ProductionFacts {
  readonly state: HostState;
  readonly settings: PluginSettings;
  readonly host: ReadyHost | UnreadyHost;
  readonly nomad: NomadState;
}

export interface ProductionCheck {
  /** Scripts rely on it: it stays. */
  readonly id: string;
  /** The state that the host should be in: a sentence. */
  readonly advice: string;
  /** The danger if it is not: one or two sentences. */
  readonly reason: string;
  /** The command or the setting that changes it: one or two sentences. */
  readonly cure: string;
  readonly look: (facts: ProductionFacts) => Verdict;
}

export interface CheckGroup {
  readonly title: string;
  /** The recommendations' source: a sentence. */
  readonly source: string;
  readonly checks: readonly ProductionCheck[];
}

export const ok = (found: string): Verdict => ({ status: "ok", found });
export const warning = (found: string): Verdict => ({ status: "warning", found });
export const notApplicable = (found: string): Verdict => ({ status: "not_applicable", found });
export const unknown = (found: string): Verdict => ({ status: "unknown", found });
