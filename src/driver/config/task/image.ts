// The task's image and how the driver gets it: the words of Nomad's docker driver.
import { ConfigError } from "../../errors.ts";
import { block, key, type Parsed } from "../table.ts";
import { boolean, duration, ignored, secret, string } from "../values.ts";

export const imageTable = {
  reference: key("image", {
    reader: string,
    required: "busybox:latest",
    doc: "The image's name as docker takes it: `busybox`, `ghcr.io/org/name:tag`, `host:5000/name@sha256:...`.",
  }),
  forcePull: key("force_pull", {
    reader: boolean,
    default: false,
    doc: "Whether the driver asks the registry for the image even if the host has it.",
  }),
  pullTimeoutMs: key("image_pull_timeout", {
    reader: duration({ minMs: 1_000, maxMs: 24 * 60 * 60_000 }),
    emptyIsAbsent: true,
    default: "5m",
    doc: "The time limit of a pull.",
  }),
  credentials: block("auth", {
    doc: "Credentials for the image's registry. If both user name and password are empty, the driver takes the image to be public, as docker's driver does.",
    rows: {
      username: key("username", { reader: string, absent: "none", doc: "The user's name." }),
      password: key("password", { reader: secret, absent: "none", doc: "The password or token. No message shows it." }),
      email: key("email", { reader: ignored, doc: "Accepted and ignored, as docker's driver does." }),
      serverAddress: key("server_address", {
        reader: ignored,
        doc: "Accepted and ignored: the credentials go to the image's registry.",
      }),
    },
    convert: ({ username = "", password = "" }, path) => {
      if (username === "" && password === "") return undefined;
      if (username === "") {
        throw new ConfigError(`${path}.username`, username, `must be set if ${path}.password is`);
      }
      // The password itself must not show in a message.
      if (password === "") {
        throw new ConfigError(`${path}.password`, undefined, `must be set if ${path}.username is`);
      }
      return { username, password };
    },
  }),
};

export type ImageOptions = Parsed<typeof imageTable>;
