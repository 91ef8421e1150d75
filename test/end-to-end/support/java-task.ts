// A task of Nomad's java driver that serves, as the neighbour of a VM.
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { runSuccessfully } from "./command.ts";

/** Of the JDK on PATH; undefined where there is none. */
const javaHome = findJavaHome();

export const skipJava: string | false = javaHome === undefined ? "no JDK on PATH: javac" : false;

function findJavaHome(): string | undefined {
  for (const directory of (process.env["PATH"] ?? "").split(delimiter)) {
    try {
      return dirname(dirname(realpathSync(join(directory, "javac"))));
    } catch {
      // Not in this one.
    }
  }
  return undefined;
}

/** Arguments: the port to serve at, and the host and port to ask every second. */
const source = `
  import java.io.*;
  import java.net.*;
  public class Neighbour {
    public static void main(String[] words) throws Exception {
      ServerSocket server = new ServerSocket(Integer.parseInt(words[0]));
      new Thread() {
        public void run() {
          while (true) {
            try (Socket socket = server.accept()) {
              String peer = socket.getInetAddress().getHostAddress();
              socket.getOutputStream().write(("java answers " + peer + "\\n").getBytes());
            } catch (IOException error) { System.out.println(error); }
          }
        }
      }.start();
      while (true) {
        try (Socket socket = new Socket(words[1], Integer.parseInt(words[2]))) {
          socket.setSoTimeout(5000);
          socket.getOutputStream().write("GET / HTTP/1.0\\r\\n\\r\\n".getBytes());
          System.out.println("java reads ".concat(new String(socket.getInputStream().readAllBytes()).replaceAll("\\\\s+", " ")));
        } catch (IOException error) { System.out.println(error); }
        Thread.sleep(1000);
      }
    }
  }
`;

/** The task's class. Compiled before the task starts: in test/rig's machine that takes longer than a job should. */
export class Neighbour implements Disposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "lgjava-"));
  readonly #classes = join(this.#directory, "classes");

  constructor() {
    // Tasks run as nobody.
    chmodSync(this.#directory, 0o755);
    mkdirSync(this.#classes, { mode: 0o755 });
  }

  async compile(): Promise<void> {
    const file = join(this.#directory, "Neighbour.java");
    await writeFile(file, source);
    // For strings, no code that is made when it first runs.
    const args = ["-XDstringConcat=inline", "-d", this.#classes, file];
    await runSuccessfully({ file: join(javaHome ?? "", "bin/javac"), args, timeoutMs: 300_000 });
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** For the agent's client block: what of the host a java task sees. The default links all of /usr, file by file. */
  get clientConfig(): string {
    return `
      chroot_env = {
        "/etc"                  = "/etc"
        "/lib/x86_64-linux-gnu" = "/lib/x86_64-linux-gnu"
        "/lib64"                = "/lib64"
        "${this.#classes}"      = "/neighbour"
        "${javaHome ?? "/usr/lib/jvm"}" = "${javaHome ?? "/usr/lib/jvm"}"
      }
    `;
  }

  /**
   * Answers each connection at `port` with who it comes from; on its standard output, says what it reads at host:port every
   * second.
   */
  task(options: { name: string; port: number; asks: { host: string; port: number } }): string {
    const { name, port, asks } = options;
    return `
      task "${name}" {
        driver = "java"
        lifecycle {
          hook    = "poststart"
          sidecar = true
        }
        config {
          class       = "Neighbour"
          # In the working directory; with an absolute path the class was not found.
          class_path  = "neighbour"
          args        = ["${port}", "${asks.host}", "${asks.port}"]
          jvm_options = ["-Xmx64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        }
        resources {
          cpu    = 100
          memory = 512
        }
      }
    `;
  }
}
