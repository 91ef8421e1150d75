// Bounds what one image may keep in memory while it is converted. Compressed layers are small beside what they may claim:
// one kilobyte can hold a thousand names or a megabyte of attributes. Bytes of text are counted as they are; everything
// of a fixed size (a header, a directory, an attribute) is counted by number.
import { ImageLimitError } from "./errors.ts";
import type { TarHeader } from "./tar/tar-entry.ts";

const mib = 2 ** 20;

export interface ImageBounds {
  /** Names, link targets and extended attributes of one layer. */
  readonly layerTextBytes: number;
  /** The same of all layers. */
  readonly imageTextBytes: number;
  /** The names of the merged image, from its root. Symlinks can make them much longer than the layers' own. */
  readonly mergedNameBytes: number;
  /** Entries of all layers, and directories that no layer has an entry for. Each costs some 700 bytes of memory. */
  readonly files: number;
  readonly xattrs: number;
}

const defaultBounds: ImageBounds = {
  layerTextBytes: 64 * mib,
  imageTextBytes: 128 * mib,
  mergedNameBytes: 256 * mib,
  files: 1_500_000,
  xattrs: 500_000,
};

/** One image's account. Every method fails with ImageLimitError. */
export class ImageBudget {
  readonly #bounds: ImageBounds;
  #layer: string | undefined;
  #layerTextBytes = 0;
  #imageTextBytes = 0;
  #mergedNameBytes = 0;
  #files = 0;
  #xattrs = 0;

  constructor(bounds: Partial<ImageBounds> = {}) {
    this.#bounds = { ...defaultBounds, ...bounds };
  }

  /** `digest` is for messages. */
  beginLayer(digest: string): void {
    this.#layer = digest;
    this.#layerTextBytes = 0;
  }

  addEntry(header: TarHeader): void {
    const { layerTextBytes, imageTextBytes, xattrs } = this.#bounds;
    let textBytes = header.path.length + header.target.length;
    for (const { name, value } of header.xattrs) textBytes += name.length + value.length;
    this.#layerTextBytes += textBytes;
    this.#imageTextBytes += textBytes;
    this.#xattrs += header.xattrs.length;
    const what = "names, links and extended attributes";
    if (this.#layerTextBytes > layerTextBytes) {
      throw this.#exceeded(`its ${what} have more than ${layerTextBytes / mib} MiB`);
    }
    if (this.#imageTextBytes > imageTextBytes) {
      throw this.#exceeded(`the image's ${what} have more than ${imageTextBytes / mib} MiB`);
    }
    if (this.#xattrs > xattrs) throw this.#exceeded(`the image has more than ${xattrs} extended attributes`);
    this.addFile();
  }

  /** A node of the merged tree that has no entry of its own. */
  addFile(): void {
    this.#files++;
    if (this.#files > this.#bounds.files) {
      throw this.#exceeded(`the image has more than ${this.#bounds.files} files and directories`);
    }
  }

  addMergedName(name: string): void {
    const { mergedNameBytes } = this.#bounds;
    this.#layer = undefined;
    this.#mergedNameBytes += name.length;
    if (this.#mergedNameBytes > mergedNameBytes) {
      throw this.#exceeded(`the names of the image's files have more than ${mergedNameBytes / mib} MiB`);
    }
  }

  #exceeded(problem: string): ImageLimitError {
    return new ImageLimitError({ problem, layer: this.#layer });
  }
}
