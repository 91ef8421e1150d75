// The vsock device for QEMU: a program of the rust-vmm project, built from its published crate with repairs. Version 0.3.0
// leaves its VM unreachable for good when a client connects before the guest's queues are ready, and when one goes away
// before the guest has accepted its connection (a killed plugin, a deadline while the guest hangs).
//
// Usage: node scripts/vhost-device-vsock.ts CACHE RUST-TARGET. Builds the program unless the cache has it. Two builds
// at once would share folders: scripts/build.ts runs this under a lock.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { cargoMetadata } from "./supply/cargo.ts";
import { type Component, cargoChecksums, cargoComponents } from "./supply/component.ts";

const version = "0.3.0";

interface Repair {
  readonly file: string;
  readonly broken: string;
  readonly repaired: string;
}

const repairs: readonly Repair[] = [
  {
    file: "src/vsock_conn.rs",
    broken: "self.stream.write_all(response.as_bytes()).unwrap();",
    repaired: `if self.stream.write_all(response.as_bytes()).is_err() {
                        self.rx_queue.enqueue(RxOps::Reset);
                        return Ok(());
                    }`,
  },
  // An error ends the thread that serves the queues. The device sends the waiting data when the guest announces its first buffers.
  {
    file: "src/vhu_vsock.rs",
    broken: "_ => return Err(e.into()),\n                    }",
    repaired: '_ => warn!("Received a backend event that can not be served yet: {e:?}"),\n                    }',
  },
  {
    file: "src/vhu_vsock.rs",
    broken: "thread.process_rx(vring_rx, evt_idx)?;",
    repaired: `if let Err(e) = thread.process_rx(vring_rx, evt_idx) {
                warn!("The receive queue can not be served yet: {e:?}");
            }`,
  },
];

const rustFlags = "-C target-feature=+crt-static -C strip=symbols";

/** Beside the program in the cache. */
interface BuildRecord {
  readonly sha256: string;
  readonly components: readonly Component[];
}

export interface VhostDeviceVsock {
  readonly program: string;
  /** The crates in it, itself included. */
  readonly components: readonly Component[];
}

/** The program of the cache, if it is still the file that was built; undefined else. Fails if others may change the cache. */
export function cachedVhostDeviceVsock(options: { cache: string; rustTarget: string }): VhostDeviceVsock | undefined {
  const root = placeOf(options);
  const program = join(root, "bin/vhost-device-vsock");
  let record: BuildRecord;
  try {
    record = JSON.parse(readFileSync(join(root, recordName), "utf8")) as BuildRecord;
    if (sha256(readFileSync(program)) !== record.sha256) return undefined;
  } catch {
    return undefined;
  }
  for (const path of [options.cache, dirname(root), root, dirname(program), program]) {
    const { uid, mode } = lstatSync(path);
    if ((uid !== process.getuid?.() && uid !== 0) || (mode & 0o002) !== 0) {
      throw new Error(`others may change ${path}: give it to this user, without write permission for others`);
    }
  }
  return { program, components: record.components };
}

const recordName = "build.json";

/** Other sources, repairs, flags or another compiler: another place. */
export function placeOf({ cache, rustTarget }: { cache: string; rustTarget: string }): string {
  const compiler = execFileSync("rustc", ["--version"], { encoding: "utf8" });
  const inputs = sha256(JSON.stringify([version, repairs, rustFlags, rustTarget, compiler]));
  return join(cache, "vhost-device-vsock", `${version}-${inputs.slice(0, 12)}`);
}

function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

function buildVhostDeviceVsock(options: { cache: string; rustTarget: string }): void {
  const root = placeOf(options);
  const work = join(options.cache, "vhost-device-vsock", "work");
  rmSync(work, { recursive: true, force: true });
  const source = join(work, "source");
  const { directory, checksum } = fetchSource(join(work, "fetch"));
  cpSync(directory, source, { recursive: true });
  for (const one of repairs) repair(source, one);
  const built = join(work, "root");
  cargo(
    [
      ...["install", "--path", source, "--locked", "--quiet"],
      ...["--target", options.rustTarget, "--target-dir", join(work, "target"), "--root", built],
    ],
    source,
  );
  const record = {
    sha256: sha256(readFileSync(join(built, "bin/vhost-device-vsock"))),
    components: componentsOf(source, checksum),
  };
  // For `make audit`, which looks its crates up.
  renameSync(source, join(built, "source"));
  writeFileSync(join(built, recordName), JSON.stringify(record));
  rmSync(root, { recursive: true, force: true });
  renameSync(built, root);
  rmSync(work, { recursive: true });
}

/** `checksum`: of the crate itself, which its own lock file does not have. */
function componentsOf(source: string, checksum: string): Component[] {
  const name = "vhost-device-vsock";
  const metadata = cargoMetadata(source);
  const id = metadata.packages.find((one) => one.name === name)?.id;
  const packages = metadata.packages.map((one) => (one.id === id ? { ...one, source: "registry" } : one));
  const lock = `${readFileSync(join(source, "Cargo.lock"), "utf8")}\nname = "${name}"\nversion = "${version}"\nchecksum = "${checksum}"\n`;
  return cargoComponents({ metadata: { ...metadata, packages }, lock, programs: [name], part: name });
}

/** The crate's sources, checksum verified: `cargo vendor` of a package that depends on it. */
function fetchSource(directory: string): { directory: string; checksum: string } {
  mkdirSync(directory, { recursive: true });
  const manifest = ['name = "fetch"', 'version = "0.0.0"', 'edition = "2021"', '[lib]\npath = "lib.rs"'];
  const dependency = `[dependencies]\nvhost-device-vsock = "=${version}"\n`;
  writeFileSync(join(directory, "Cargo.toml"), `[workspace]\n[package]\n${manifest.join("\n")}\n${dependency}`);
  writeFileSync(join(directory, "lib.rs"), "");
  cargo(["vendor", "--quiet"], directory);
  const checksum = cargoChecksums(readFileSync(join(directory, "Cargo.lock"), "utf8")).get(
    `vhost-device-vsock ${version}`,
  );
  if (checksum === undefined) throw new Error(`no checksum of vhost-device-vsock ${version} in the lock file`);
  return { directory: join(directory, "vendor/vhost-device-vsock"), checksum };
}

function repair(source: string, { file, broken, repaired }: Repair): void {
  const path = join(source, file);
  const text = readFileSync(path, "utf8");
  if (text.split(broken).length !== 2) throw new Error(`${path} is not what the repair was made for`);
  writeFileSync(path, text.replace(broken, repaired));
}

function cargo(args: readonly string[], cwd: string): void {
  const env = { ...process.env, RUSTFLAGS: rustFlags };
  execFileSync("cargo", args, { cwd, stdio: ["ignore", "ignore", "inherit"], env });
}

if (import.meta.main) {
  const [cache, rustTarget] = process.argv.slice(2);
  if (cache === undefined || rustTarget === undefined) throw new Error("give the cache's directory and Rust's target");
  // Another build may have made it while this one waited for the lock.
  if (cachedVhostDeviceVsock({ cache, rustTarget }) === undefined) buildVhostDeviceVsock({ cache, rustTarget });
}
