// The process that runs in the guest: the image's configuration and the task's, combined as docker and Nomad's docker driver do.
import type { ProcessSpec } from "../../guest/setup.ts";
import type { ImageConfig } from "../../images/registry/image-config.ts";
import type { TaskSettings } from "../config/task/task-config.ts";
import { ConfigError } from "../errors.ts";

export interface ProcessSpecOptions {
  readonly image: Omit<ImageConfig, "stopSignal">;
  readonly settings: TaskSettings;
  /** Nomad's environment: NOMAD_* and the job's own. */
  readonly nomadEnv: Readonly<Record<string, string>>;
  /** The job's `user`, or empty. */
  readonly user: string;
}

/** Fails with ConfigError if neither job nor image names a program. */
export function processSpec(options: ProcessSpecOptions): ProcessSpec {
  const { image, settings, nomadEnv } = options;
  const { container } = settings;
  return {
    argv: argv(image, settings),
    env: mergeEnv([image.env, Object.entries(nomadEnv).map(([name, value]) => `${name}=${value}`), settings.env]),
    user: options.user === "" ? image.user : options.user,
    workDir: settings.workDir ?? image.workingDir,
    additionalGroups: container.additionalGroups,
    capabilities: container.capabilities,
    limits: container.limits,
    oomScoreAdjustment: container.oomScoreAdjustment,
    noNewPrivileges: container.noNewPrivileges,
    terminal: container.terminal,
    openStdin: container.openStdin,
  };
}

/**
 * docker's rules: the task's command replaces the image's CMD; without a command its args do. A task's entrypoint replaces
 * the image's and with it the image's CMD.
 */
function argv(image: Pick<ImageConfig, "entrypoint" | "cmd">, settings: TaskSettings): string[] {
  const args = settings.args ?? [];
  const command = settings.command === undefined || settings.command === "" ? args : [settings.command, ...args];
  const entrypoint = settings.entrypoint ?? [];
  const ownEntrypoint = entrypoint.length > 0;
  const whole = [
    ...(ownEntrypoint ? entrypoint : image.entrypoint),
    ...(command.length > 0 || ownEntrypoint ? command : image.cmd),
  ];
  if (whole.length === 0) {
    throw new ConfigError("command", undefined, "is required: the image has neither ENTRYPOINT nor CMD");
  }
  return whole;
}

/** Later lists win; the order of first mention is kept. */
function mergeEnv(lists: readonly (readonly string[])[]): string[] {
  const merged = new Map<string, string>();
  for (const entry of lists.flat()) {
    const at = entry.indexOf("=");
    if (at > 0) merged.set(entry.slice(0, at), entry);
  }
  return [...merged.values()];
}
