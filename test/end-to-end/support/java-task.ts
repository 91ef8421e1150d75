// A task of Nomad's java driver that serves, as the neighbour of a VM.
import { execFileSync } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";

/** The JDK on PATH; undefined if there is none. Nomad gets the class as source, which needs a compiler. */
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

/**
 * For the agent's client block: the part of the host that a java task sees. The default links all of /usr, file by
 * file, or copies it if the task's directory lies on another file system. So this has no more than a Java program
 * needs.
 */
export const javaClientConfig = `
  chroot_env = {
${javaPaths()
  .map((path) => `    ${JSON.stringify(realpathSync(path))} = ${JSON.stringify(path)}`)
  .join("\n")}
  }
`;

function javaPaths(): string[] {
  if (javaHome === undefined) return [];
  const programs = ["bin/java", "bin/javac", "lib/server/libjvm.so"];
  const libraries = ["java", "jimage", "jli", "net", "nio", "verify", "zip"].map((name) => `lib/lib${name}.so`);
  const files = [...programs, ...libraries].map((name) => join(javaHome, name)).filter(existsSync);
  const needed = execFileSync("ldd", files, { encoding: "utf8" }).matchAll(/^\s.*?(\/\S+) \(0x/gm);
  const outside = [...needed].flatMap(([, path = ""]) => (path.startsWith(`${javaHome}/`) ? [] : [path]));
  return ["/etc", ...["bin", "conf", "lib"].map((name) => join(javaHome, name)), ...new Set(outside)];
}

/** Answers each connection at `port` with its peer's address. Prints what it reads from host:port, every second. */
export function javaTask(options: { name: string; port: number; asks: { host: string; port: number } }): string {
  const { name, port, asks } = options;
  const source = `
    import java.io.*;
    import java.net.*;
    class Neighbour {
      public static void main(String[] words) throws Exception {
        ServerSocket server = new ServerSocket(${port});
        new Thread(() -> {
          while (true) {
            try (Socket socket = server.accept()) {
              String peer = socket.getInetAddress().getHostAddress();
              socket.getOutputStream().write(("java answers " + peer + "\\n").getBytes());
            } catch (IOException error) { System.out.println(error); }
          }
        }).start();
        while (true) {
          try (Socket socket = new Socket("${asks.host}", ${asks.port})) {
            socket.setSoTimeout(5000);
            socket.getOutputStream().write("GET / HTTP/1.0\\r\\n\\r\\n".getBytes());
            System.out.println("java reads " + new String(socket.getInputStream().readAllBytes()).replaceAll("\\\\s+", " "));
          } catch (IOException error) { System.out.println(error); }
          Thread.sleep(1000);
        }
      }
    }
  `;
  return `
    task "${name}" {
      driver = "java"
      lifecycle {
        hook    = "poststart"
        sidecar = true
      }
      template {
        destination = "local/Neighbour.java"
        data        = <<END
${source}
END
      }
      config {
        class       = "local/Neighbour.java"
        jvm_options = ["-Xmx64m", "-XX:TieredStopAtLevel=1"]
      }
      resources {
        cpu    = 100
        memory = 512
      }
    }
  `;
}
