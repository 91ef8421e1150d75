// Tells when something in a directory comes, goes or changes, so that who waits for a file need not look again and again.
import { type FSWatcher, watch } from "node:fs";

export class DirectoryChanges implements Disposable {
  readonly #watcher: FSWatcher | undefined;
  #next = Promise.withResolvers<void>();

  /** A directory that can't be watched (the host's inotify watches are used up) tells nothing: look again now and then. */
  constructor(directory: string) {
    try {
      this.#watcher = watch(directory, { persistent: false }, () => this.#tell());
      this.#watcher.on("error", () => undefined);
    } catch {
      this.#watcher = undefined;
    }
  }

  /** Resolves at the first change from now on. To miss none: take it, look, then wait. */
  get next(): Promise<void> {
    return this.#next.promise;
  }

  [Symbol.dispose](): void {
    this.#watcher?.close();
  }

  #tell(): void {
    this.#next.resolve();
    this.#next = Promise.withResolvers();
  }
}
