// Started by Nomad (the magic cookie is in the environment) this is the plugin; started by hand it is the command line tool.
// Each half is loaded only when needed: Nomad starts a plugin three times per agent start.

async function main(): Promise<void> {
  // The driver's own children inherit the environment, cookie included.
  const isPlugin = process.env["NOMAD_PLUGIN_MAGIC_COOKIE"] !== undefined && process.argv[2] !== "internal";
  if (isPlugin) {
    const { runPlugin } = await import("./plugin.ts");
    await runPlugin();
    return;
  }
  const { createProgram } = await import("./cli/program.ts");
  await createProgram().parseAsync(process.argv);
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
