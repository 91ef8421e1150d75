import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import * as tarStream from "tar-stream";
import { plainHeader } from "../../../test/fakes/fake-image.ts";
import { DriverError } from "../../system/error.ts";
import { encodeTarHeader } from "./encode-tar-header.ts";
import { padding, readTar } from "./read-tar.ts";
import type { TarHeader } from "./tar-entry.ts";

interface Read {
  readonly header: TarHeader;
  readonly body: Buffer;
}

async function* inChunks(archive: Buffer, chunkBytes: number): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < archive.length; offset += chunkBytes) {
    yield archive.subarray(offset, offset + chunkBytes);
  }
}

async function readAll(archive: Buffer, chunkBytes = 1 << 20): Promise<Read[]> {
  const entries: Read[] = [];
  for await (const { header, body } of readTar(inChunks(archive, chunkBytes))) {
    const pieces: Buffer[] = [];
    for await (const piece of body()) pieces.push(Buffer.from(piece));
    entries.push({ header, body: Buffer.concat(pieces) });
  }
  return entries;
}

const endOfArchive = Buffer.alloc(1024);
const plainFile: TarHeader = { ...plainHeader, path: "f" };

function archiveOf(...members: readonly (readonly [Partial<TarHeader>, Buffer?])[]): Buffer {
  const blocks = members.map(([fields, body = Buffer.alloc(0)]) => {
    const header = encodeTarHeader({ ...plainFile, sizeBytes: body.length, ...fields });
    return Buffer.concat([header, body, Buffer.alloc(padding(body.length))]);
  });
  return Buffer.concat([...blocks, endOfArchive]);
}

/** A raw block with a right checksum, for headers that the encoder never writes. */
function rawBlock(name: string, typeFlag: string, fields: Record<number, string> = {}): Buffer {
  const block = encodeTarHeader(plainFile);
  block.fill(0, 0, 100);
  block.write(name, 0, "latin1");
  block.write(typeFlag, 156, "latin1");
  for (const [offset, text] of Object.entries(fields)) block.write(text, Number(offset), "latin1");
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

async function problemOf(archive: Buffer): Promise<string> {
  try {
    await readAll(archive);
  } catch (error) {
    assert.ok(error instanceof DriverError, String(error));
    assert.equal(error.code, "bad_layer");
    return error.text;
  }
  return assert.fail("the archive was accepted");
}

test("reads what tar-stream writes, in chunks of any size", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          name: fc
            .array(fc.stringMatching(/^[a-zé]{1,60}$/), { minLength: 1, maxLength: 8 })
            .map((parts) => parts.join("/")),
          body: fc.uint8Array({ maxLength: 1500 }),
          mode: fc.integer({ min: 1, max: 0o7777 }),
          uid: fc.integer({ min: 0, max: 0o777777 }),
          mtime: fc.integer({ min: 0, max: 0x7fff_ffff }),
        }),
        { maxLength: 5 },
      ),
      fc.integer({ min: 1, max: 2_000 }),
      async (files, chunkBytes) => {
        const pack = tarStream.pack();
        for (const { name, body, mode, uid, mtime } of files) {
          pack.entry({ name, mode, uid, mtime: new Date(mtime * 1000) }, Buffer.from(body));
        }
        pack.finalize();
        const chunks: Buffer[] = [];
        for await (const chunk of pack) chunks.push(chunk as Buffer);
        const read = await readAll(Buffer.concat(chunks), chunkBytes);
        assert.deepEqual(
          read.map(({ header, body }) => ({
            name: Buffer.from(header.path, "latin1").toString("utf8"),
            body: [...body],
            mode: header.mode,
            uid: header.uid,
            mtime: header.mtime,
          })),
          files.map((file) => ({ ...file, body: [...file.body] })),
        );
      },
    ),
    { numRuns: 60 },
  );
});

const bytes = (max: number): fc.Arbitrary<string> =>
  fc.uint8Array({ minLength: 1, maxLength: max }).map((data) =>
    Buffer.from(data)
      .toString("latin1")
      .replace(/[\0/.]/g, "_"),
  );

const anyHeader: fc.Arbitrary<TarHeader> = fc
  .record({
    path: fc.array(bytes(120), { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/")),
    type: fc.constantFrom("file", "directory", "symlink", "hardlink", "character", "block", "fifo"),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.integer({ min: 0, max: 0xffff_ffff }),
    gid: fc.integer({ min: 0, max: 0xffff_ffff }),
    mtime: fc.integer({ min: 0, max: 0xffff_ffff }),
    target: bytes(200),
    deviceMajor: fc.integer({ min: 0, max: 0xfff }),
    deviceMinor: fc.integer({ min: 0, max: 0xfffff }),
    xattrs: fc.uniqueArray(
      fc.record(
        {
          name: fc.constantFrom("security.capability", "user.a", "user.b"),
          value: fc.uint8Array({ maxLength: 40 }).map((data) => Buffer.from(data)),
        },
        { noNullPrototype: true },
      ),
      { selector: (xattr) => xattr.name },
    ),
  })
  .map((header) => ({
    ...header,
    sizeBytes: 0,
    target: header.type === "symlink" || header.type === "hardlink" ? header.target : "",
  }));

test("the encoder's output is read back the same, including binary names and attributes", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyHeader, { maxLength: 4 }), async (headers) => {
      const read = await readAll(Buffer.concat([...headers.map(encodeTarHeader), endOfArchive]), 333);
      assert.deepEqual(
        read.map(({ header }) => header),
        headers,
      );
    }),
    { numRuns: 200 },
  );
});

test("cut anywhere, an archive gives a typed error or a clean prefix; damaged anywhere, never anything else", async () => {
  const archive = archiveOf(
    [{ path: "d", type: "directory" }],
    [
      { path: "x".repeat(150), xattrs: [{ name: "user.a", value: Buffer.from([0xff, 0, 10]) }] },
      Buffer.alloc(700, "b"),
    ],
    [{ path: "l", type: "symlink", target: "t".repeat(120) }],
  );
  const attempt = async (damaged: Buffer): Promise<void> => {
    try {
      const read = await readAll(damaged, 512);
      assert.ok(read.length <= 4);
    } catch (error) {
      assert.ok(error instanceof DriverError, String(error));
    }
  };
  await fc.assert(fc.asyncProperty(fc.nat(archive.length), (length) => attempt(archive.subarray(0, length))));
  await fc.assert(
    fc.asyncProperty(fc.nat(archive.length - 1), fc.integer({ min: 1, max: 255 }), async (offset, flip) => {
      const damaged = Buffer.from(archive);
      damaged[offset] = (damaged[offset] ?? 0) ^ flip;
      await attempt(damaged);
    }),
    { numRuns: 1_000 },
  );
});

test("names are made relative and clean, and may not leave the root", async () => {
  const archive = archiveOf([{ path: "/etc//./x" }], [{ path: "./" }], [{ path: "a/../b/" }]);
  const read = await readAll(archive);
  assert.deepEqual(
    read.map(({ header }) => [header.path, header.type]),
    [
      ["etc/x", "file"],
      ["", "directory"],
      ["b", "directory"],
    ],
  );
  for (const path of ["../x", "a/../../x", "/..", "a/b/../../../../etc/passwd"]) {
    assert.match(await problemOf(archiveOf([{ path }])), /leads out of the image/);
  }
  assert.match(await problemOf(archiveOf([{ type: "hardlink", target: "../../x" }])), /leads out of the image/);
  assert.match(await problemOf(archiveOf([{ path: "n".repeat(256) }])), /longer than 255 bytes/);
  assert.match(await problemOf(archiveOf([{ path: "n/".repeat(3_000) }])), /longer than 4095 bytes/);
});

test("GNU long names and base-256 numbers are read", async () => {
  const name = `${"long/".repeat(40)}name`;
  const archive = Buffer.concat([
    rawBlock("././@LongLink", "L", { 124: `${name.length.toString(8).padStart(11, "0")}\0` }),
    Buffer.from(name),
    Buffer.alloc(padding(name.length)),
    rawBlock("cut", "0", { 108: "\x80\0\0\0\xee\x6b\x28\0", 257: "ustar  \0", 345: "notaprefix" }),
    endOfArchive,
  ]);
  const [read] = await readAll(archive);
  assert.equal(read?.header.path, name);
  assert.equal(read?.header.uid, 4_000_000_000);
});

test("hostile archives are refused with the reason", async () => {
  const oversized = rawBlock("x", "x", { 124: "77777777777\0" });
  assert.match(
    await problemOf(Buffer.concat([oversized, endOfArchive])),
    /extended tar header claims 8589934591 bytes/,
  );
  const huge = rawBlock("f", "0", { 124: "77777777777\0" });
  assert.match(await problemOf(Buffer.concat([huge, endOfArchive])), /truncated/);
  assert.match(await problemOf(Buffer.concat([rawBlock("f", "0", { 124: "9zz\0" }), endOfArchive])), /malformed size/);
  assert.match(
    await problemOf(Buffer.concat([rawBlock("f", "0", { 108: "\xff\xff\xff\xff\xff\xff\xff\xff" })])),
    /uid out of range: -1/,
  );
  assert.match(
    await problemOf(Buffer.concat([rawBlock("f", "S"), endOfArchive])),
    /sparse file, which is not supported/,
  );
  assert.match(
    await problemOf(Buffer.concat([rawBlock("f", "Z"), endOfArchive])),
    /of type "Z", which is not supported/,
  );
  assert.match(await problemOf(Buffer.alloc(512, "garbage ")), /malformed checksum|wrong checksum/);
  const pax = (text: string): Buffer =>
    Buffer.concat([
      rawBlock("x", "x", { 124: `${text.length.toString(8).padStart(11, "0")}\0` }),
      Buffer.from(text),
      Buffer.alloc(padding(text.length)),
      rawBlock("f", "0"),
      endOfArchive,
    ]);
  for (const text of ["x path=a\n", "99 path=a\n", "3 \n", "10 path=ab", "9999999999999 path=a\n", "5 a=\n6"]) {
    assert.match(await problemOf(pax(text)), /pax header is malformed/, text);
  }
  assert.match(await problemOf(pax("12 uid=1e99\n")), /malformed uid/);
  assert.match(await problemOf(pax("13 path=a\0b\n\n".slice(0, 13))), /NUL byte|malformed/);
});

test("an archive that ends right behind its last file's bytes, as umoci writes it, is whole", async () => {
  const whole = archiveOf([{ path: "a" }, Buffer.from("first")], [{ path: "b" }, Buffer.from("second")]);
  const end = whole.length - endOfArchive.length - padding(6);
  for (const cut of [end, end + 1]) {
    const entries = await readAll(whole.subarray(0, cut));
    assert.deepEqual(
      entries.map(({ header, body }) => [header.path, body.toString()]),
      [
        ["a", "first"],
        ["b", "second"],
      ],
    );
  }
  assert.match(await problemOf(whole.subarray(0, end - 1)), /truncated/);
});

test("an archive without an end mark is whole at a block's edge; a lone extended header is not", async () => {
  const archive = archiveOf([{ path: "a" }, Buffer.from("x")]);
  assert.equal((await readAll(archive.subarray(0, 1024))).length, 1);
  assert.deepEqual(await readAll(Buffer.alloc(0)), []);
  const lone = archiveOf([{ path: "p".repeat(101) }]).subarray(0, 1024);
  assert.match(await problemOf(lone), /truncated/);
});

test("attributes that no Linux could have, and those that the disk does not hold", async () => {
  const withXattr = (name: string, sizeBytes: number): Buffer =>
    archiveOf([{ path: "f", xattrs: [{ name, value: Buffer.alloc(sizeBytes) }] }]);
  assert.match(await problemOf(withXattr("user.a", 65_537)), /"user.a" has 65537 bytes; Linux allows 65536/);
  assert.match(await problemOf(withXattr(`user.${"a".repeat(251)}`, 1)), /Linux allows 65536, and 255 in its name/);
  const many = Array.from({ length: 5 }, (_, index) => ({ name: `user.${index}`, value: Buffer.alloc(60_000) }));
  assert.match(await problemOf(archiveOf([{ path: "f", xattrs: many }])), /of one file have more than 262144 bytes/);
  for (const name of ["other.a", "system.posix_acl_access", "trusted.overlay.opaque"]) {
    const [entry] = await readAll(withXattr(name, 900_000));
    assert.deepEqual(entry?.header.xattrs, [], name);
  }
  const [kept] = await readAll(withXattr("trusted.a", 65_536));
  assert.equal(kept?.header.xattrs[0]?.value.buffer.byteLength, 65_536);
});

test("a name of a megabyte of slashes", async () => {
  assert.match(await problemOf(archiveOf([{ path: `${"/".repeat(1_000_000)}name` }])), /is longer than 4095 bytes/);
});
