// Images that need much, or nothing, from their runtime.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { runJob, runService } from "./support/allocation.ts";
import { runSuccessfully } from "./support/command.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { ImageBuilder } from "./support/image-builder.ts";

const fixture = Fixture.use();
let images: ImageBuilder;
before(async () => {
  if (skipVms !== false) return;
  await fixture.ready();
  images = await ImageBuilder.create();
});
after(() => images?.[Symbol.asyncDispose]());

describe("an image of one static binary: no shell, no /etc, no directory", { skip: skipVms }, () => {
  let image: string;
  before(async () => {
    const layout = await mkdtemp(join(tmpdir(), "lge2e-empty-"));
    const content = join(layout, "content");
    const line = [
      `mkdir ${content}; cp /bin/busybox ${content}/busybox; cd ${layout}; umoci init --layout layout`,
      `umoci new --image layout:app; umoci insert --image layout:app ${content}/busybox /busybox`,
      "umoci config --image layout:app --config.entrypoint /busybox",
    ].join("; ");
    await runSuccessfully({ file: "sh", args: ["-e", "-c", line] });
    image = `${fixture.registry.address}/e2e/empty:v1`;
    await fixture.registry.push({ source: `oci:${layout}/layout:app`, name: "e2e/empty:v1" });
    await rm(layout, { recursive: true });
  });

  it("runs, as root with / for home, with docker's file systems, and takes an exec", async () => {
    const line =
      "b=/busybox; $b id -u; echo $HOME $PATH; $b hostname; $b cat /etc/hostname; $b ls /; $b ls /dev | $b wc -l; " +
      "echo end; exec $b sleep 1d";
    const allocation = await runService({
      agent: fixture.agent,
      config: `image = "${image}"\nargs = ["sh", "-c", ${JSON.stringify(line)}]`,
    });
    await allocation.waitForLog(/^end$/m);
    const [user, home, hostname, sameHostname, ...rest] = (await allocation.log()).trimEnd().split("\n");
    assert.deepEqual([user, home], ["0", "/ /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    assert.equal(sameHostname, hostname);
    assert.deepEqual(rest, ["alloc", "busybox", "dev", "etc", "local", "proc", "secrets", "sys", "15", "end"]);
    const { stdout, exitCode } = await allocation.exec(["/busybox", "cat", "/etc/hostname"]);
    assert.deepEqual([stdout, exitCode], [`${hostname}\n`, 0]);
  });
});

describe("a command that is a shell's pipeline", { skip: skipVms }, () => {
  it("runs to the end of all its parts, with the last one's exit code", async () => {
    const allocation = await runJob({
      agent: fixture.agent,
      config: `image = "busybox:latest"
        entrypoint = ["/bin/sh", "-c"]
        command = "yes line | head -n 20000 | sort | uniq -c | tee /tmp/out | grep -c 20000; cat /tmp/out | (read n rest; exit 7)"`,
    });
    assert.deepEqual(await allocation.exit(), { exitCode: 7, signal: 0 });
    await allocation.waitForLog(/^1$/m);
  });
});

// No registry of the test machines has s6-overlay itself. This image makes the same demands on a container runtime:
// /init checks that it is process 1, makes its tree of files in a writable /run and runs programs from there. Then
// Debian's own s6 supervises, restarts and stops a service, and the container's exit code is the service's.
describe("an image that boots by s6", { skip: skipVms }, () => {
  let image: string;
  before(async () => {
    await images.create("s6");
    await images.addLayer("s6", {
      at: "/",
      fill: `
        debs=$(mktemp -d); chmod 755 "$debs"
        wanted=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances s6 execline | grep '^[a-z]' | sort -u)
        (cd "$debs"; apt-get download -q $wanted >log 2>&1 || { cat log >&2; exit 1; })
        for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" .; done
        rm -rf "$debs" usr/share
        mkdir -p run etc/s6/app etc/s6/.s6-svscan
        cat > init <<'END'
#!/bin/sh -e
[ $$ = 1 ] || { echo "init: fatal: can only run as pid 1"; exit 100; }
cp -r /etc/s6 /run/service
printf '#!/bin/sh\\nexec echo "from /run"\\n' > /run/try; chmod 755 /run/try; /run/try
exec s6-svscan /run/service
END
        cat > etc/s6/app/run <<'END'
#!/bin/sh
echo started as $$, parent $(cut -d' ' -f4 /proc/$$/stat)
trap 'echo stopping; exit 9' TERM
[ -e /run/again ] || { touch /run/again; echo crash; exit 1; }
echo serving
while :; do sleep 0.1; done
END
        cat > etc/s6/app/finish <<'END'
#!/bin/sh
echo "finish $1"; echo $1 > /run/code
END
        cat > etc/s6/.s6-svscan/finish <<'END'
#!/bin/sh
echo "all down"; exit $(cat /run/code)
END
        chmod -R 755 init etc/s6
      `,
    });
    await images.configure("s6", ["--clear", "config.cmd", "--config.entrypoint", "/init"]);
    await fixture.registry.push({ source: images.source("s6"), name: "e2e/s6:v1" });
    image = `${fixture.registry.address}/e2e/s6:v1`;
  });

  it("starts, restarts a service that crashed, and stops in order", async () => {
    const allocation = await runService({
      agent: fixture.agent,
      task: 'kill_timeout = "20s"',
      config: `image = "${image}"`,
    });
    await allocation.waitForLog(/^serving$/m);
    const log = await allocation.log();
    assert.match(log, /^from \/run$/m);
    assert.match(log, /^crash\nfinish 1\nstarted as \d+, parent \d+\nserving$/m);
    const { stdout } = await allocation.exec(["/bin/sh", "-c", "s6-svstat -o up /run/service/app; cat /proc/1/comm"]);
    assert.equal(stdout, "true\ns6-svscan\n");
    await allocation.stop();
    assert.equal((await allocation.exit()).exitCode, 9);
    await allocation.waitForLog(/^stopping\nfinish 9\nall down$/m);
  });
});
