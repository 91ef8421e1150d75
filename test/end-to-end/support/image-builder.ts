// OCI images made by umoci, on top of the busybox image.
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runSuccessfully } from "./command.ts";
import { busyboxLayout } from "./environment.ts";

/** For `addLayer` at "/": programs of this host with the libraries that they need. */
export function copyPrograms(names: readonly string[]): string {
  return `
    for name in ${names.join(" ")}; do
      program=$(command -v "$name")
      for file in $program $(ldd "$program" | grep -o '/[^ ]*'); do
        install -D "$(readlink -f "$file")" ".$file"
      done
    done
  `;
}

export class ImageBuilder implements AsyncDisposable {
  readonly directory: string;
  #files = 0;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(): Promise<ImageBuilder> {
    const builder = new ImageBuilder(await mkdtemp(join(tmpdir(), "lge2e-images-")));
    await cp(busyboxLayout, builder.#layout, { recursive: true });
    return builder;
  }

  get #layout(): string {
    return join(this.directory, "layout");
  }

  /** Makes an image of that name from another (default: busybox). Returns skopeo's name of it. */
  async create(name: string, from = "latest"): Promise<string> {
    await this.#umoci(["tag", "--image", `${this.#layout}:${from}`, name]);
    return this.source(name);
  }

  source(name: string): string {
    return `oci:${this.#layout}:${name}`;
  }

  /** umoci's flags, e.g. "--config.user", "nobody". */
  async configure(name: string, flags: readonly string[]): Promise<void> {
    await this.#umoci(["config", "--image", `${this.#layout}:${name}`, ...flags]);
  }

  /** Adds a layer: a directory that the shell script `fill` fills, run inside it. */
  async addLayer(name: string, options: { fill: string; at: string; opaque?: boolean }): Promise<void> {
    this.#files += 1;
    const content = join(this.directory, `content-${this.#files}`);
    await mkdir(content);
    await runSuccessfully({ file: "sh", args: ["-e", "-c", `cd "$1"; ${options.fill}`, "sh", content] });
    const flags = options.opaque === true ? ["--opaque"] : [];
    await this.#umoci(["insert", ...flags, "--image", `${this.#layout}:${name}`, content, options.at]);
  }

  /** Adds a layer that removes a path of the layers below. */
  async addWhiteout(name: string, path: string): Promise<void> {
    await this.#umoci(["insert", "--whiteout", "--image", `${this.#layout}:${name}`, path]);
  }

  async #umoci(args: readonly string[]): Promise<void> {
    await runSuccessfully({ file: "umoci", args });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}
