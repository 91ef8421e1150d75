// The command line tool: the executable's role if a person starts it.
import { Command } from "commander";
import { driverName, version } from "../version.ts";
import { type DoctorOptions, runDoctor } from "./doctor.ts";
import { type InspectOptions, runInspect } from "./inspect.ts";
import { internalCommands } from "./internal.ts";
import { pluginOptions } from "./plugin-options.ts";
import { runVersion } from "./version.ts";

export function createProgram(): Command {
  const program = new Command(driverName)
    .description(
      `Nomad task driver that runs OCI images in Firecracker microVMs.\n\nNomad starts this file as a plugin: put it into the agent's plugin_dir and name it in a block\nplugin "${driverName}" { config { } }. Started by hand it offers the commands below.`,
    )
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "show help")
    .showHelpAfterError("(add --help for the usage)");

  program
    .command("version")
    .description("print the versions of the driver, its guest protocol and its runtime")
    .action(() => runVersion());

  const doctor = program
    .command("doctor")
    .description("check whether this host can run microVMs, and say what to install or change")
    .option("--production", "check the host's and Nomad's settings against the recommendations for production too")
    .option("--json", "print JSON (with --production)")
    .action(async (options: DoctorOptions) => {
      process.exitCode = await runDoctor(options);
    });
  for (const option of pluginOptions()) doctor.addOption(option);

  const inspect = program
    .command("inspect")
    .description("show this host's VMs: their tasks, their networks and what those refused, their files")
    .argument("[id]", "the beginning of a VM's or an allocation's id (default: all VMs)")
    .option("--json", "print JSON")
    .action(async (id: string | undefined, options: InspectOptions) => {
      process.exitCode = await runInspect(id, options);
    });
  for (const option of pluginOptions("rootfs_base_path")) inspect.addOption(option);

  program.addCommand(internalCommands(), { hidden: true });
  return program;
}
