import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { sampleRecord } from "../../test/fakes/sample-record.ts";
import { type MachineRecord, writeRecord } from "./records/manifest.ts";
import { VmRecords } from "./records/vm-records.ts";
import { CoreFollower, shareCores } from "./shared-cores.ts";

/** A cgroup tree in plain files: Nomad's group for tasks without cores, and VMs' groups. */
class Tree {
  readonly directory: string;
  readonly records: VmRecords;
  readonly log: unknown[] = [];
  readonly follower: CoreFollower;
  readonly #effective: string;

  private constructor(directory: string, version: 1 | 2) {
    this.directory = directory;
    this.records = new VmRecords(join(directory, "vms"));
    this.#effective = version === 2 ? "cpuset.cpus.effective" : "cpuset.effective_cpus";
    const say = (_message: string, fields?: unknown): void => void this.log.push(fields);
    const logger = { trace: say, debug: say, info: say, warn: say, error: say };
    this.follower = new CoreFollower({ records: this.records, logger });
  }

  static async make(context: TestContext, version: 1 | 2): Promise<Tree> {
    const directory = await mkdtemp(join(tmpdir(), "litegix-cores-"));
    context.after(() => rm(directory, { recursive: true }));
    const tree = new Tree(directory, version);
    await mkdir(tree.share, { recursive: true });
    return tree;
  }

  get share(): string {
    return join(this.directory, "share");
  }

  /** Nomad leaves these for tasks without cores. */
  async leave(cores: string): Promise<void> {
    await writeFile(join(this.share, this.#effective), `${cores}\n`);
  }

  /** A VM with a cgroup in another hierarchy too. */
  async vm(id: string, sharedCores: string | undefined): Promise<void> {
    const cgroups = ["memory", "cpuset"].map((name) => join(this.directory, name, id));
    for (const path of cgroups) await mkdir(path, { recursive: true });
    await writeFile(join(this.directory, "cpuset", id, "cpuset.cpus"), "");
    await mkdir(join(this.records.directory, id), { recursive: true });
    const record: MachineRecord = { ...sampleRecord, id, cgroups, sharedCores };
    await writeRecord(join(this.records.directory, id, "machine.json"), record);
  }

  /** The cores that were written since the last look; the kernel's own files forget the text. */
  async written(id: string): Promise<string> {
    const path = join(this.directory, "cpuset", id, "cpuset.cpus");
    const cores = await readFile(path, "utf8");
    await truncate(path);
    return cores;
  }
}

for (const version of [1, 2] as const) {
  describe(`VMs without cores, with cgroup v${version}`, () => {
    it("follow Nomad's group, as it shrinks and grows; a VM with cores stays", async (context) => {
      const tree = await Tree.make(context, version);
      await tree.leave("0-3");
      await tree.vm("a", tree.share);
      await tree.vm("pinned", undefined);
      for (const cores of ["0-3", "0-1,3", "0-3"]) {
        await tree.leave(cores);
        await tree.follower.follow();
        assert.equal(await tree.written("a"), cores);
      }
      await tree.vm("late", tree.share);
      await tree.follower.follow();
      assert.equal(await tree.written("late"), "0-3");
      assert.equal(await tree.written("pinned"), "");
      assert.deepEqual(tree.log, [
        { vm: "a", from: "0-3", to: "0-1,3" },
        { vm: "a", from: "0-1,3", to: "0-3" },
      ]);
    });

    it("start on its cores", async (context) => {
      const tree = await Tree.make(context, version);
      await tree.leave("1");
      await tree.vm("a", tree.share);
      await shareCores([join(tree.directory, "cpuset/a")], tree.share);
      assert.equal(await tree.written("a"), "1");
    });

    it("stay where they are if there is no such group, and do not mind a VM that goes", async (context) => {
      const tree = await Tree.make(context, version);
      await tree.vm("a", join(tree.directory, "nothing"));
      await shareCores([join(tree.directory, "cpuset/a")], join(tree.directory, "nothing"));
      await tree.leave("0");
      await tree.vm("gone", tree.share);
      await rm(join(tree.directory, "cpuset/gone"), { recursive: true });
      await tree.follower.follow();
      assert.equal(await tree.written("a"), "");
      assert.deepEqual(tree.log, []);
    });
  });
}
