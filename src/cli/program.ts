// The command line tool: what the executable is when a person starts it.
import { Command, Option } from "commander";
import { driverName, version } from "../version.ts";
import { runDoctor } from "./doctor.ts";
import { type InspectOptions, runInspect } from "./inspect.ts";
import { internalCommands } from "./internal.ts";
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

  program
    .command("doctor")
    .description("look whether this host can run microVMs, and say what to install or change")
    .option("--rootfs-base-path <directory>", "where images, kernels and VMs lie, as in the plugin's config")
    .option("--vmlinux-path <file>", "the guest kernel, as in the plugin's config")
    .addOption(
      new Option("--vmm <program>", "the program to run VMs with, as in the plugin's config").choices([
        "auto",
        "firecracker",
        "qemu",
      ]),
    )
    .option("--firecracker-path <file>", "as in the plugin's config")
    .option("--jailer-path <file>", "as in the plugin's config")
    .option("--qemu-path <file>", "as in the plugin's config")
    .action(async (options: Record<string, string>) => {
      process.exitCode = await runDoctor(options);
    });

  program
    .command("inspect")
    .description("tell of this host's VMs: whose they are, their network and what it refused, where their files lie")
    .argument("[id]", "the beginning of a VM's or an allocation's id (default: all VMs)")
    .option("--rootfs-base-path <directory>", "as in the plugin's config")
    .option("--json", "print JSON")
    .action(async (id: string | undefined, options: InspectOptions) => {
      process.exitCode = await runInspect(id, options);
    });

  program.addCommand(internalCommands(), { hidden: true });
  return program;
}
