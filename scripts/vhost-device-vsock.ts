// The vsock device for QEMU: a program of the rust-vmm project, built from its published crate with repairs. Version 0.3.0
// leaves its VM unreachable for good when a client connects before the guest's queues are ready, and when one goes away
// before the guest has accepted its connection (a killed plugin, a deadline while the guest hangs).
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const version = "0.3.0";
/** Raised with every change of the repairs. */
const revision = 2;

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

/** Gives the program's path; builds it unless the cache has it. */
export function buildVhostDeviceVsock(options: { cache: string; rustTarget: string }): string {
  const root = join(options.cache, "vhost-device-vsock", `${version}-${revision}`);
  const program = join(root, "bin/vhost-device-vsock");
  if (existsSync(program)) return program;
  const work = join(options.cache, "vhost-device-vsock", "work");
  rmSync(work, { recursive: true, force: true });
  const source = join(work, "source");
  cpSync(fetchSource(join(work, "fetch")), source, { recursive: true });
  for (const one of repairs) repair(source, one);
  cargo(
    [
      ...["install", "--path", source, "--locked", "--quiet"],
      ...["--target", options.rustTarget, "--target-dir", join(work, "target"), "--root", join(work, "root")],
    ],
    source,
  );
  mkdirSync(root, { recursive: true });
  rmSync(root, { recursive: true });
  renameSync(join(work, "root"), root);
  rmSync(work, { recursive: true });
  return program;
}

/** The crate's sources, checksum verified: `cargo vendor` of a package that depends on it. Gives their directory. */
function fetchSource(directory: string): string {
  mkdirSync(directory, { recursive: true });
  const manifest = ['name = "fetch"', 'version = "0.0.0"', 'edition = "2021"', '[lib]\npath = "lib.rs"'];
  const dependency = `[dependencies]\nvhost-device-vsock = "=${version}"\n`;
  writeFileSync(join(directory, "Cargo.toml"), `[workspace]\n[package]\n${manifest.join("\n")}\n${dependency}`);
  writeFileSync(join(directory, "lib.rs"), "");
  cargo(["vendor", "--quiet"], directory);
  return join(directory, "vendor/vhost-device-vsock");
}

function repair(source: string, { file, broken, repaired }: Repair): void {
  const path = join(source, file);
  const text = readFileSync(path, "utf8");
  if (text.split(broken).length !== 2) throw new Error(`${path} is not what the repair was made for`);
  writeFileSync(path, text.replace(broken, repaired));
}

function cargo(args: readonly string[], cwd: string): void {
  const env = { ...process.env, RUSTFLAGS: "-C target-feature=+crt-static -C strip=symbols" };
  execFileSync("cargo", args, { cwd, stdio: ["ignore", "ignore", "inherit"], env });
}
