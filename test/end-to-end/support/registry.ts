// Debian's docker-registry on a loopback port, filled by skopeo.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runSuccessfully } from "./command.ts";
import { waitUntilGone } from "./processes.ts";
import { waitFor } from "./wait.ts";

export interface PushOptions {
  /** skopeo's name of the source, e.g. "oci:/layout:latest" or "dir:/x". */
  readonly source: string;
  /** Without host, e.g. "library/busybox:latest". */
  readonly name: string;
  /** skopeo's flags. */
  readonly flags?: readonly string[];
}

export class Registry implements AsyncDisposable {
  /** host:port */
  readonly address: string;
  readonly directory: string;
  readonly #process: ChildProcess;

  private constructor(options: { address: string; directory: string; process: ChildProcess }) {
    this.address = options.address;
    this.directory = options.directory;
    this.#process = options.process;
  }

  /** `settings`: more of the registry's configuration, in YAML. */
  static async start(settings = ""): Promise<Registry> {
    const directory = await mkdtemp(join(tmpdir(), "lge2e-registry-"));
    const configPath = join(directory, "config.yml");
    const logPath = join(directory, "log");
    const config = [
      'version: "0.1"',
      "log: { level: info, formatter: text, accesslog: { disabled: true } }",
      `storage: { filesystem: { rootdirectory: ${directory}/storage } }`,
      'http: { addr: "127.0.0.1:0" }',
      settings,
    ];
    await writeFile(configPath, config.join("\n"));
    const log = openSync(logPath, "a");
    const child = spawn("docker-registry", ["serve", configPath], { stdio: ["ignore", log, log] });
    closeSync(log);
    const address = await waitFor({
      what: "docker-registry to listen",
      timeoutMs: 15_000,
      attempt: async () => /listening on (127\.0\.0\.1:\d+)/.exec(await readFile(logPath, "utf8"))?.[1],
      seen: async () => (await readFile(logPath, "utf8")).slice(-500),
    });
    return new Registry({ address, directory, process: child });
  }

  async push(options: PushOptions): Promise<void> {
    await runSuccessfully({
      file: "skopeo",
      args: [
        ...["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", ...(options.flags ?? [])],
        ...[options.source, `docker://${this.address}/${options.name}`],
      ],
    });
  }

  /** The manifest that the name stands for, with the registry's digest and media type of it. */
  async manifest(repository: string, tag: string): Promise<{ digest: string; mediaType: string; body: string }> {
    const accept = [
      "application/vnd.oci.image.index.v1+json",
      "application/vnd.oci.image.manifest.v1+json",
      "application/vnd.docker.distribution.manifest.v2+json",
    ].join(", ");
    const response = await fetch(`http://${this.address}/v2/${repository}/manifests/${tag}`, { headers: { accept } });
    const digest = response.headers.get("docker-content-digest");
    const mediaType = response.headers.get("content-type");
    if (!response.ok || digest === null || mediaType === null) throw new Error(`no manifest of ${repository}:${tag}`);
    return { digest, mediaType, body: await response.text() };
  }

  async putManifest(options: { repository: string; tag: string; mediaType: string; body: string }): Promise<void> {
    const response = await fetch(`http://${this.address}/v2/${options.repository}/manifests/${options.tag}`, {
      method: "PUT",
      headers: { "content-type": options.mediaType },
      body: options.body,
    });
    if (!response.ok) throw new Error(`PUT manifest: ${response.status} ${await response.text()}`);
  }

  /** The registry's file of a blob's bytes, which it does not verify again. */
  blobPath(digest: string): string {
    const hex = digest.replace("sha256:", "");
    return join(this.directory, "storage/docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { pid } = this.#process;
    if (pid !== undefined) {
      this.#process.kill("SIGKILL");
      await waitUntilGone({ pid, timeoutMs: 10_000 });
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}
