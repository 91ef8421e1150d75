// `doctor`: the fingerprint's checks, for a person; with --production also the recommendations for production.

import { parsePluginConfig } from "../driver/config/plugin/plugin-config.ts";
import { hostDirectories } from "../driver/host/directories.ts";
import { inspectHost, type ReadyHost } from "../driver/host/inspect-host.ts";
import { readNomadState } from "../driver/host/production/nomad-state.ts";
import { VmRecords } from "../machine/records/vm-records.ts";
import { networkText } from "../system/ip.ts";
import { isolationOf } from "../vmm/vmm.ts";
import { toPluginConfig } from "./plugin-options.ts";
import { productionSettings, reportProduction } from "./production.ts";

export type DoctorOptions = Readonly<Record<string, string | boolean>>;

/**
 * `options`: as program.ts declares them. Returns the exit status: 0 if tasks can run, 1 if something is missing; with --production
 * 1 also if a recommendation is not followed.
 */
export async function runDoctor(options: DoctorOptions): Promise<number> {
  if (options["json"] === true && options["production"] !== true) {
    process.stderr.write("--json needs --production: doctor alone prints text\n");
    return 1;
  }
  const given = toPluginConfig(options);
  const nomad = options["production"] === true ? await readNomadState(process.env) : undefined;
  let settings: ReturnType<typeof parsePluginConfig>;
  try {
    settings = nomad === undefined ? parsePluginConfig(given) : productionSettings(given, nomad);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    return 1;
  }
  const directories = hostDirectories(settings.basePath);
  const records = new VmRecords(directories.machines);
  const host = await inspectHost({ settings, directories, records });
  const readiness = host.ready ? report(host) : `not ready: ${host.reason}\n`;
  if (nomad !== undefined)
    return await reportProduction({ readiness, settings, host, nomad }, options["json"] === true);
  process.stdout.write(readiness);
  return host.ready ? 0 : 1;
}

function report(host: ReadyHost): string {
  const { boot, selected, facts, network, warnings } = host;
  return [
    "ready",
    `  vmm           ${selected.vmm.kind} ${selected.vmm.version}`,
    `  acceleration  ${selected.vmm.acceleration}`,
    `  reason        ${selected.reason}`,
    `  kernel        ${boot.release} (${boot.vmlinuxPath})`,
    `  initramfs     ${(boot.initramfsBytes / 1e6).toFixed(1)} MB (${boot.initramfsPath})`,
    `  isolation     ${isolationOf(selected.vmm)}`,
    `  cgroups       ${facts.cgroupVersion === undefined ? "none" : `version ${facts.cgroupVersion}`}`,
    `  huge pages    ${facts.freeHugePages} free`,
    `  tun           ${facts.tun ? "yes" : "no"}`,
    `  network       default: ${network.nat.usable ? networkText(network.nat.subnet) : network.nat.reason}`,
    `                bridge, CNI: ${network.group.usable ? (network.bridgeLack ?? "yes") : network.group.reason}`,
    ...warnings.map((warning) => `warning: ${warning}`),
    "",
  ].join("\n");
}
