// Judges a host by all production checks, for `doctor --production`, for the fingerprint, and for docs/operate/production.md.
import type { PluginSettings } from "../../config/plugin/plugin-config.ts";
import type { ReadyHost } from "../inspect-host.ts";
import type { CheckGroup, CheckStatus, ProductionFacts } from "./check.ts";
import { firecrackerGroup } from "./driver-checks.ts";
import { hostGroup } from "./host-checks.ts";
import { readHostState } from "./host-state.ts";
import { nomadGroup } from "./nomad-checks.ts";

export const productionChecks: readonly CheckGroup[] = [firecrackerGroup, hostGroup, nomadGroup];

export interface CheckResult {
  readonly id: string;
  readonly group: string;
  readonly status: CheckStatus;
  readonly found: string;
  readonly advice: string;
  readonly reason: string;
  readonly cure: string;
}

export function judge(facts: ProductionFacts): CheckResult[] {
  return productionChecks.flatMap(({ title, checks }) =>
    checks.map(({ id, advice, reason, cure, look }) => ({ id, group: title, ...look(facts), advice, reason, cure })),
  );
}

/** The checks' ids for the node's attributes. */
export interface ProductionIds {
  /** Followed, or about something that this host does not have. */
  readonly ok: readonly string[];
  readonly warnings: readonly string[];
}

/** Without the checks of Nomad and of running VMs. Never fails. */
export async function judgeBriefly(options: {
  settings: PluginSettings;
  host: Omit<ReadyHost, "production">;
}): Promise<ProductionIds> {
  const { settings } = options;
  const { basePath, firecrackerPath, jailerPath, jailer, allowedHostPaths: hostPaths } = settings;
  const state = await readHostState({
    basePath,
    firecrackerPath,
    jailerPath,
    users: jailer.users,
    hostPaths,
    brief: true,
  });
  const host = { ...options.host, production: { ok: [], warnings: [] } };
  const nomad = { reached: false, refused: false, reason: "not asked" } as const;
  const results = judge({ state, settings, host, nomad });
  const withStatus = (...wanted: readonly CheckStatus[]): string[] =>
    results.filter(({ status }) => wanted.includes(status)).map(({ id }) => id);
  return { ok: withStatus("ok", "not_applicable"), warnings: withStatus("warning") };
}
