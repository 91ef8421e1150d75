// `doctor --production`: the host against the recommendations for production, for a person or as JSON.
import { type PluginSettings, parsePluginConfig, pluginTable } from "../driver/config/plugin/plugin-config.ts";
import type { ReadyHost, UnreadyHost } from "../driver/host/inspect-host.ts";
import type { CheckStatus } from "../driver/host/production/check.ts";
import { readHostState } from "../driver/host/production/host-state.ts";
import type { NomadState } from "../driver/host/production/nomad-state.ts";
import { type CheckResult, judge } from "../driver/host/production/production.ts";

/** The plugin's config in the agent that answers, with the command line's options before it. Fails with ConfigError. */
export function productionSettings(options: Readonly<Record<string, unknown>>, nomad: NomadState): PluginSettings {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return parsePluginConfig({ ...agentConfig(nomad), ...Object.fromEntries(given) });
}

/** Blocks with labels have another form in the agent's answer, and no check needs them. */
function agentConfig(nomad: NomadState): Record<string, unknown> {
  if (!nomad.reached || nomad.agent.pluginConfig === undefined) return {};
  const labelled = Object.values(pluginTable).filter(({ help }) => help.block?.heading.includes('"') === true);
  const left: readonly string[] = labelled.map(({ key }) => key);
  return Object.fromEntries(Object.entries(nomad.agent.pluginConfig).filter(([key]) => !left.includes(key)));
}

export interface ProductionReport {
  /** The text of `doctor` without --production. */
  readonly readiness: string;
  readonly settings: PluginSettings;
  readonly host: ReadyHost | UnreadyHost;
  readonly nomad: NomadState;
}

/** Writes the report. Returns the exit status: 0 without a warning, 1 with one, or if the host can't run VMs. */
export async function reportProduction(report: ProductionReport, json: boolean): Promise<number> {
  const { readiness, settings, host, nomad } = report;
  const { basePath, firecrackerPath, jailerPath, jailer, allowedHostPaths: hostPaths } = settings;
  const state = await readHostState({ basePath, firecrackerPath, jailerPath, users: jailer.users, hostPaths });
  const results = judge({ state, settings, host, nomad });
  const counts = countOf(results);
  const source = nomad.reached && nomad.agent.pluginConfig ? `the agent at ${nomad.address}` : "defaults and options";
  const ready = host.ready ? { ready: true } : { ready: false, reason: host.reason };
  process.stdout.write(
    json
      ? `${JSON.stringify({ ...ready, settings: source, counts, checks: results }, undefined, 2)}\n`
      : `${readiness}\nsettings: ${source}\n${productionText(results)}`,
  );
  return host.ready && counts.warning === 0 ? 0 : 1;
}

const words: Readonly<Record<CheckStatus, string>> = {
  ok: "ok",
  warning: "WARN",
  not_applicable: "n/a",
  unknown: "unknown",
};

export function productionText(results: readonly CheckResult[]): string {
  const width = Math.max(...results.map(({ id }) => id.length));
  const lines: string[] = [];
  let group = "";
  for (const result of results) {
    if (result.group !== group) lines.push("", result.group);
    ({ group } = result);
    lines.push(`  ${words[result.status].padEnd(7)}  ${result.id.padEnd(width)}  ${result.found}`);
    if (result.status !== "warning") continue;
    const indent = " ".repeat(11);
    lines.push(`${indent}why: ${result.reason}`, `${indent}cure: ${result.cure}`);
  }
  const { ok, warning, not_applicable, unknown } = countOf(results);
  lines.push("", `${ok} ok, ${warning} warnings, ${not_applicable} not applicable, ${unknown} unknown`, "");
  return lines.join("\n");
}

function countOf(results: readonly CheckResult[]): Record<CheckStatus, number> {
  const counts = { ok: 0, warning: 0, not_applicable: 0, unknown: 0 };
  for (const { status } of results) counts[status]++;
  return counts;
}
